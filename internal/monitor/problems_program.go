package monitor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// flow is a counter of the program's: what came since the last cut, and in the last
// quarter of an hour.
type recentCounter struct {
	last        uint64
	sinceSample uint64                // since the last cut
	currentStep uint64                // in the step that is not over
	steps       [historyLength]uint32 // in those before
	started     bool
}

// The counters whose flow is watched.
const (
	counterGaps = iota
	counterDrops
	counterOverLimit
	counterRejects
	counterNoWorker
	counterCount
)

// counters are what they stand at.
func readCounters(t *stats.Stats) [counterCount]uint64 {
	return [counterCount]uint64{
		counterGaps:      t.MissedEvents.Load(),
		counterDrops:     t.Dropped(stats.QueueFull),
		counterOverLimit: t.AllRefused() - t.Refused(stats.SubscriptionLimit), // which is a problem of its own
		counterRejects:   countDecodeErrors(t),
		counterNoWorker:  t.Rejected(stats.ForwardPass, stats.NoWorker),
	}
}

// useless are the reasons that say that a message could not be read, and not only that
// there is no use for it.
var decodeErrors = [...]stats.Reason{stats.BadJSON, stats.BadName, stats.BadID, stats.BadLoad, stats.BadMsgpack, stats.BadFrames, stats.BadText, stats.TooLarge}

// rejected are the messages that could not be read. Answers to polls whose load cannot
// be are their workers' problem.
func countDecodeErrors(t *stats.Stats) (n uint64) {
	for _, k := range stats.Kinds() {
		for _, r := range decodeErrors {
			if k != stats.StatsReply || r != stats.BadLoad {
				n += t.Rejected(k, r)
			}
		}
	}
	return n
}

// take notes what a counter stands at. What it stood at when we began is of before.
func (f *recentCounter) update(n uint64) {
	if !f.started {
		f.started, f.last = true, n
	}
	f.sinceSample = n - f.last
	f.last, f.currentStep = n, f.currentStep+f.sinceSample
}

// close ends a step.
func (f *recentCounter) closeStep(slot int) {
	f.steps[slot], f.currentStep = saturatingAdd(0, f.currentStep), 0
}

func (f *recentCounter) sum() uint64 {
	all := f.currentStep
	for _, n := range f.steps {
		all += uint64(n)
	}
	return all
}

// flowing is the measure of a counter that should stand still.
func measureIncrease(which int) func(*Monitor, *Monitor) number {
	return func(m, _ *Monitor) number { return boolMeasure(m.counters[which].sinceSample > 0) }
}

func measureEtcd(m, _ *Monitor) number  { return boolMeasure(!m.stats().Etcd.Up()) }
func measureFiles(m, _ *Monitor) number { return boolMeasure(!m.stats().Files.Up()) }

func measureKubernetes(m, _ *Monitor) number { return boolMeasure(!m.stats().Kubernetes.Up()) }

// natsAway: NATS matters if something of the namespace comes over it. Where it is there, and
// denies what is required, that is another problem.
func measureNATS(m, _ *Monitor) number {
	return boolMeasure(!m.stats().NATS.Up() && m.usesNATS && len(m.options.Fleet.Diagnostics.RefusedSubjects(true)) == 0)
}

// away is a server that is not connected, with why, as far as that is known.
func (m *Monitor) serverText(name string) string {
	link := registries(m.stats())[name]
	if link == nil {
		link = &m.stats().NATS
	}
	return m.options.Servers[name] + ifElse(link.LastError() == "", "", " ("+link.LastError()+")")
}

func etcdMessage(m *Monitor, p *problem) message {
	return message{
		title:  "etcd is not connected",
		detail: m.serverText("etcd") + ": who comes and goes is not noticed; the fleet is shown as it was known.",
		check:  "is it up, and can it be reached from here? Compare ETCD_ENDPOINTS here and at the workers.",
	}
}

func filesMessage(m *Monitor, p *problem) message {
	return message{
		title:  "The directory of workers cannot be read",
		detail: m.serverText("file") + ": who comes and goes is not noticed; the fleet is shown as it was known.",
		check:  "does it exist, is it mounted here, and may this program read it? Compare --file-kv (DYN_FILE_KV) here and DYN_FILE_KV at the workers. The log has the error.",
	}
}

func kubernetesMessage(m *Monitor, p *problem) message {
	return message{
		title:  "The Kubernetes API cannot be read",
		detail: m.serverText("kubernetes") + ": who comes and goes is not noticed; the fleet is shown as it was known.",
		check:  "is it up, and may this program's service account list and watch what it needs? The log names a right that is missing.",
	}
}

func natsMessage(m *Monitor, p *problem) message {
	return message{
		title:  "NATS is not connected",
		detail: m.serverText("nats") + ": no poll is answered and no event over NATS is heard; loads are as old as that.",
		check:  "is it up, and can it be reached from here? Compare NATS_SERVER here and at the workers.",
	}
}

// subjectsRefused are those that NATS denies, whether they are required or not.
func measurePermission(m, _ *Monitor) number {
	n := &m.options.Fleet.Diagnostics
	return fleet.Some(float64(len(n.RefusedSubjects(true)) + len(n.RefusedSubjects(false))))
}

func permissionMessage(m *Monitor, p *problem) message {
	n := &m.options.Fleet.Diagnostics
	required, optional := n.RefusedSubjects(true), n.RefusedSubjects(false)
	matters := len(required) > 0 && m.usesNATS
	msg := message{
		title: "NATS denies a permission",
		detail: fmt.Sprintf("%s does not let this program use %s: ", m.options.Servers["nats"], joinAnd(append(required, optional...))) +
			ifElse(matters, "what comes there is not heard, or workers are not asked. Loads and hit rates are as old as that.", "what not every fleet sends is not heard, or l2c events are not published. All else goes on."),
		check:    "grant the NATS user of this program what SECURITY.md lists. It tries again by itself, every few seconds.",
		severity: ifElse(matters, severityBad, severityInfo),
	}
	return msg
}

// awayFor is how long a publisher may be away: one that was killed stays announced for
// as long as its lease.
const publisherGrace = 45 * time.Second

func (m *Monitor) unreachablePublishers() []fleet.Channel {
	if m.stats().PublishersUp.Load() >= m.stats().Publishers.Load() {
		return nil
	}
	return m.options.Fleet.Diagnostics.UnreachableSince(m.sampledAt.Add(-publisherGrace))
}

func measurePublishers(m, _ *Monitor) number {
	return fleet.Some(float64(len(m.unreachablePublishers())))
}

func publishersMessage(m *Monitor, p *problem) message {
	var all []string
	for _, c := range m.unreachablePublishers() {
		all = append(all, c.Address+ifElse(c.Endpoint.Component == "", "", " of "+strings.TrimSuffix(c.Endpoint.String(), "/")))
	}
	all = slices.Compact(all)
	up, want := m.stats().PublishersUp.Load(), m.stats().Publishers.Load()
	return message{
		title:    ifElse(up == 0, "No ZMQ publisher can be reached", fmt.Sprintf("%s of %s ZMQ publishers can be reached", formatCount(up), formatCount(want))),
		detail:   fmt.Sprintf("These are announced and do not answer: %s. Their events are lost.", summarizeStrings(all)),
		check:    "is there a network policy between this program and the workers? Each publishes on a port of its own. A process that died without taking its keys back also looks like this.",
		severity: ifElse(up == 0, severityBad, severityWarn),
	}
}

func measurePublishersWaiting(m, _ *Monitor) number {
	return boolMeasure(m.stats().PublishersWaiting.Load() > 0)
}

func publishersWaitingMessage(m *Monitor, p *problem) message {
	waiting, want := m.stats().PublishersWaiting.Load(), m.stats().Publishers.Load()
	return message{
		title:  fmt.Sprintf("%s of %s ZMQ publishers have to wait", formatCount(waiting), formatCount(want)),
		detail: "So many connections at once are not allowed, or so many to one host. Nothing is heard of those that wait, and their events are lost.",
		check:  "is the fleet that large? Then raise the limit on open files (ulimit -n), or --max-workers. Else publishers are announced that are not there.",
	}
}

// nobodyLeads: a program that does not lead itself knows of no other that does, as while the
// registry is away.
func measureLeader(m, _ *Monitor) number {
	t := m.stats()
	return boolMeasure(m.options.Instance != "" && !t.ActsAsLeader.Load() && !(t.OtherLeader.Load() && t.RegistryUp()))
}

func leaderMessage(m *Monitor, p *problem) message {
	msg := message{
		title:  "There may be no leader",
		detail: fmt.Sprintf("Who holds %s cannot be known while %s is away, so this program neither pushes nor publishes l2c events.", m.options.Instance, m.options.Registry),
		check:  "the connection to it: with that a leader is soon back.",
	}
	switch {
	case !m.stats().RegistryUp():
	case m.stats().NoLease.Load():
		msg.detail = fmt.Sprintf("%s hangs on no lease: it was put by hand, and nothing will ever delete it. This program neither pushes nor publishes l2c events, and no other can lead.", m.options.Instance)
		msg.check = "is there no program that needs it? Then: etcdctl del " + m.options.Instance
	default:
		msg.detail = fmt.Sprintf("This program cannot have %s confirmed, and knows of no other that holds it, so it neither pushes nor publishes l2c events.", m.options.Instance)
		msg.check = "the program's log says what is in the way: a right that is missing, or a server that answers late."
	}
	return msg
}

// pushes are those since the last that succeeded.
type pushCounter struct{ ok, failed, since uint64 }

func (p *pushCounter) update(t *stats.Stats) {
	if ok := t.PushOK.Load(); ok != p.ok {
		p.ok, p.since = ok, t.PushError.Load()
	}
	p.failed = t.PushError.Load() - p.since
}

func measurePush(m, _ *Monitor) number { return fleet.Some(float64(m.pushes.failed)) }

func pushMessage(m *Monitor, p *problem) message {
	last := "None has succeeded yet"
	if at := m.stats().LastPush.Load(); at != 0 {
		last = "The last that succeeded was " + formatDuration(m.sampledAt.Sub(time.Unix(0, at))) + " ago"
	}
	return message{
		title:  "Pushes fail",
		detail: fmt.Sprintf("%s pushes to %s have failed in a row. %s.", formatCount(m.pushes.failed), m.options.Gateway, last),
		check:  "is the Pushgateway up, and does it take what it is sent? The log says why the first push failed.",
	}
}

func measureWebConfig(m, _ *Monitor) number { return boolMeasure(m.webConfigError != "") }

func webConfigMessage(m *Monitor, p *problem) message {
	return message{
		title:  "The web configuration cannot be used as it is",
		detail: fmt.Sprintf("%s: %s. What it said before is still in force.", m.options.WebFile, m.webConfigError),
		check:  "was it emptied, or written in part? As soon as it is whole it is taken over. One that demands less of clients than before is in force after a restart.",
	}
}

func limitMessage(m *Monitor, p *problem) message      { return limitText(m, "is") }
func limitEndedMessage(m *Monitor, p *problem) message { return limitText(m, "was") }

func limitText(m *Monitor, is string) message {
	var kinds []string
	for _, l := range stats.Limits() {
		if n := m.stats().Refused(l); n > 0 {
			kinds = append(kinds, fmt.Sprintf("%s: %s", l, formatCount(n)))
		}
	}
	workersAlone := m.stats().AllRefused() == m.stats().Refused(stats.WorkerLimit)
	return message{
		title: "There " + is + " no room for " + ifElse(workersAlone, "more than "+plural(m.options.Limit, "worker"), "all that "+is+" there"),
		detail: fmt.Sprintf("In the last 15 min %s of workers, answers and events were turned away. Since the start, by kind: %s.",
			formatCount(m.counters[counterOverLimit].sum()), strings.Join(kinds, ", ")),
		check: "is the fleet that large? Then raise --max-workers. Else something registers or publishes made-up names and ids.",
	}
}

func measurePlanes(m, _ *Monitor) number {
	return boolMeasure(len(m.options.Fleet.Diagnostics.PlaneMismatches()) > 0)
}

func planesMessage(m *Monitor, p *problem) message {
	clashes := m.options.Fleet.Diagnostics.PlaneMismatches()
	var all []string
	for _, component := range slices.Sorted(maps.Keys(clashes)) {
		all = append(all, component+": "+clashes[component])
	}
	var rows []*row
	for i := range m.rows {
		ep := m.rows[i].endpoint
		if _, there := clashes[strings.TrimPrefix(ep.Namespace+"/"+ep.Component, "/")]; there {
			rows = append(rows, &m.rows[i])
		}
	}
	return message{
		title:  "Workers and routers are on different event planes",
		detail: strings.Join(all[:min(maxListed, len(all))], "; ") + ifElse(len(all) > maxListed, "; and "+formatCount(len(all)-maxListed)+" more", "") + ". Those routers do not hear what is cached, and send requests as if nothing were.",
		check:  "set DYN_EVENT_PLANE to the same value for every worker, router and frontend.",
		rows:   rows,
	}
}

func dropsMessage(m *Monitor, p *problem) message {
	return message{
		title:  ifElse(m.counters[counterDrops].sum() == 1, "1 message was dropped here", formatCount(m.counters[counterDrops].sum())+" messages were dropped here"),
		detail: "In the last 15 min, because the NATS client's queue was full: loads may be old, and hit rates lack what was lost.",
		check:  "is this program short of CPU? Give it a core.",
	}
}

func rejectsMessage(m *Monitor, p *problem) message {
	var all []string
	for _, k := range stats.Kinds() {
		for _, r := range decodeErrors {
			if n := m.stats().Rejected(k, r); n > 0 && (k != stats.StatsReply || r != stats.BadLoad) {
				all = append(all, fmt.Sprintf("%s: %s (%s)", strings.ReplaceAll(k.String(), "_", " "), formatCount(n), r))
			}
		}
	}
	one, more := "message", "messages"
	if m.stats().Rejected(stats.WorkerMetrics, stats.BadText) > 0 {
		one, more = "message or line of a worker's page", "messages or lines of workers' pages"
	}
	n := m.counters[counterRejects].sum()
	return message{
		title:  formatCount(n) + " " + ifElse(n == 1, one, more) + " could not be read",
		detail: "In the last 15 min. Since the start, by kind and reason: " + strings.Join(all, ", ") + ".",
		check:  "a release that is newer than this program, or a stranger at the same place? With DYN_LOG=info,metrics=debug the log has each with its reason.",
	}
}

func noWorkerMessage(m *Monitor, p *problem) message {
	return message{
		title:  "An engine did not know its worker's id",
		detail: fmt.Sprintf("%s of forward passes in the last 15 min named no worker, and could not be shown.", formatCount(m.counters[counterNoWorker].sum())),
		check:  "how is the engine started? Dynamo's own launchers tell it the id.",
	}
}

func gapsMessage(m *Monitor, p *problem) message {
	missing := m.counters[counterGaps].sum()
	var all []string
	var rows []*row
	for _, gap := range slices.Backward(m.options.Fleet.Diagnostics.Gaps()) {
		who, of := m.publisherOf(gap.Publisher)
		rows = append(rows, of...)
		all = append(all, fmt.Sprintf("%s skipped from %s to %s (%s, %s ago)", who, formatCount(gap.After), formatCount(gap.Before),
			strings.ReplaceAll(gap.Kind.String(), "_", " "), formatDuration(m.sampledAt.Sub(gap.At))))
	}
	return message{
		title:    ifElse(missing == 1, "1 event is missing", formatCount(missing)+" events are missing"),
		detail:   "In the last 15 min. The last: " + summarizeStrings(all) + ".",
		check:    "did the publisher's network drop, or does it send more than a subscriber can read? A few that are missing when a connection has just been made are normal on ZeroMQ.",
		severity: ifElse(float64(missing) > 0.01*m.eventsInHistory(), severityWarn, severityInfo),
		rows:     rows,
	}
}

// publisher is who an event's publisher is: to 1.3 a worker, by its id; later one of a
// channel, whose worker is not known.
func (m *Monitor) publisherOf(id uint64) (name string, rows []*row) {
	for i := range m.rows {
		if m.rows[i].id.Lease == id {
			rows = append(rows, &m.rows[i])
		}
	}
	hex := strconv.FormatUint(id, 16)
	if len(rows) > 0 {
		return hex, rows
	}
	if c, ok := m.options.Fleet.ChannelOf(id); ok {
		return strings.TrimSpace(fmt.Sprintf("publisher %s of %s %s", hex, strings.Trim(c.Endpoint.String(), "/"), c.Address)), nil
	}
	return "publisher " + hex, nil
}
