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

// recentCounter tracks a counter of the program: its increase since the last sample, and in the
// last 15 minutes.
type recentCounter struct {
	last        uint64
	sinceSample uint64                // increase since the last sample
	currentStep uint64                // increase in the current step
	steps       [historyLength]uint32 // increase in the steps before
	started     bool
}

// The counters that rules watch.
const (
	counterGaps = iota
	counterDrops
	counterOverLimit
	counterRejects
	counterNoWorker
	counterCount
)

// readCounters returns the current values.
func readCounters(s *stats.Stats) [counterCount]uint64 {
	return [counterCount]uint64{
		counterGaps:      s.MissedEvents.Load(),
		counterDrops:     s.Dropped(stats.QueueFull),
		counterOverLimit: s.AllRefused() - s.Refused(stats.SubscriptionLimit), // limit:publishers reports those
		counterRejects:   countDecodeErrors(s),
		counterNoWorker:  s.Rejected(stats.ForwardPass, stats.NoWorker),
	}
}

// decodeErrors are the reasons for rejecting a message that could not be decoded, rather than one
// that is of no use.
var decodeErrors = [...]stats.Reason{stats.BadJSON, stats.BadName, stats.BadID, stats.BadLoad, stats.BadMsgpack, stats.BadFrames, stats.BadText, stats.TooLarge}

// countDecodeErrors counts the messages that could not be decoded. It leaves out poll replies
// with a malformed load: those are a problem of their workers.
func countDecodeErrors(s *stats.Stats) (n uint64) {
	for _, k := range stats.Kinds() {
		for _, r := range decodeErrors {
			if k != stats.StatsReply || r != stats.BadLoad {
				n += s.Rejected(k, r)
			}
		}
	}
	return n
}

// update reads a counter. What it counted before the first sample is left out.
func (c *recentCounter) update(n uint64) {
	if !c.started {
		c.started, c.last = true, n
	}
	c.sinceSample = n - c.last
	c.last, c.currentStep = n, c.currentStep+c.sinceSample
}

// closeStep ends a step.
func (c *recentCounter) closeStep(slot int) {
	c.steps[slot], c.currentStep = saturatingAdd(0, c.currentStep), 0
}

func (c *recentCounter) sum() uint64 {
	all := c.currentStep
	for _, n := range c.steps {
		all += uint64(n)
	}
	return all
}

// measureIncrease returns the measure of a counter that should not increase.
func measureIncrease(which int) func(*Monitor, *Monitor) number {
	return func(m, _ *Monitor) number { return boolMeasure(m.counters[which].sinceSample > 0) }
}

func measureEtcd(m, _ *Monitor) number  { return boolMeasure(!m.stats().Etcd.Up()) }
func measureFiles(m, _ *Monitor) number { return boolMeasure(!m.stats().Files.Up()) }

func measureKubernetes(m, _ *Monitor) number { return boolMeasure(!m.stats().Kubernetes.Up()) }

// measureNATS holds only if workers of the namespace use NATS. If NATS is reachable and denies a
// required permission, that is another problem.
func measureNATS(m, _ *Monitor) number {
	return boolMeasure(!m.stats().NATS.Up() && m.usesNATS && len(m.options.Fleet.Diagnostics.RefusedSubjects(true)) == 0)
}

// serverText returns the address of a server that is not connected, and why, if known.
func (m *Monitor) serverText(name string) string {
	conn := registries(m.stats())[name]
	if conn == nil {
		conn = &m.stats().NATS
	}
	return m.options.Servers[name] + ifElse(conn.LastError() == "", "", " ("+conn.LastError()+")")
}

func etcdMessage(m *Monitor, p *problem) message {
	return message{
		title:  "etcd is not connected",
		detail: m.serverText("etcd") + ": workers that join or leave are not noticed. The fleet is shown as it was last known.",
		check:  "is it up, and can it be reached from here? Compare ETCD_ENDPOINTS here and at the workers.",
	}
}

func filesMessage(m *Monitor, p *problem) message {
	return message{
		title:  "The directory of workers cannot be read",
		detail: m.serverText("file") + ": workers that join or leave are not noticed. The fleet is shown as it was last known.",
		check:  "does it exist, is it mounted here, and may this program read it? Compare --file-kv (DYN_FILE_KV) here and DYN_FILE_KV at the workers. The log has the error.",
	}
}

func kubernetesMessage(m *Monitor, p *problem) message {
	return message{
		title:  "The Kubernetes API cannot be read",
		detail: m.serverText("kubernetes") + ": workers that join or leave are not noticed. The fleet is shown as it was last known.",
		check:  "is it up, and may this program's service account list and watch what it needs? The log names a missing permission.",
	}
}

func natsMessage(m *Monitor, p *problem) message {
	return message{
		title:  "NATS is not connected",
		detail: m.serverText("nats") + ": polls get no replies and no events arrive over NATS. Loads are as old as the outage.",
		check:  "is it up, and can it be reached from here? Compare NATS_SERVER here and at the workers.",
	}
}

// measurePermission returns the number of subjects that NATS denies, required or not.
func measurePermission(m, _ *Monitor) number {
	diag := &m.options.Fleet.Diagnostics
	return fleet.Some(float64(len(diag.RefusedSubjects(true)) + len(diag.RefusedSubjects(false))))
}

func permissionMessage(m *Monitor, p *problem) message {
	diag := &m.options.Fleet.Diagnostics
	required, optional := diag.RefusedSubjects(true), diag.RefusedSubjects(false)
	matters := len(required) > 0 && m.usesNATS
	msg := message{
		title: "NATS denies a permission",
		detail: fmt.Sprintf("%s does not let this program use %s: ", m.options.Servers["nats"], joinAnd(append(required, optional...))) +
			ifElse(matters, "messages on these subjects are not received, or workers are not polled. Loads and hit rates are as old as that.", "messages that not every fleet sends are not received, or l2c events are not published. Everything else works."),
		check:    "grant the NATS user of this program the permissions that SECURITY.md lists. The program retries every few seconds.",
		severity: ifElse(matters, severityBad, severityInfo),
	}
	return msg
}

// publisherGrace is how long a publisher may be unreachable. After a crash its key stays in the
// registry until the lease expires.
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
		detail:   fmt.Sprintf("These are registered but cannot be reached: %s. Their events are lost.", summarizeStrings(all)),
		check:    "is there a network policy between this program and the workers? Each worker publishes on its own port. A process that crashed also looks like this until its lease expires.",
		severity: ifElse(up == 0, severityBad, severityWarn),
	}
}

func measurePublishersWaiting(m, _ *Monitor) number {
	return boolMeasure(m.stats().PublishersWaiting.Load() > 0)
}

func publishersWaitingMessage(m *Monitor, p *problem) message {
	waiting, want := m.stats().PublishersWaiting.Load(), m.stats().Publishers.Load()
	return message{
		title:  fmt.Sprintf("%s of %s ZMQ publishers wait for a connection", formatCount(waiting), formatCount(want)),
		detail: "The limit of connections, or of connections to one host, is reached. The events of publishers that wait are lost.",
		check:  "is the fleet that large? Then raise the limit of open files (ulimit -n), or --max-workers. If not, publishers are registered that do not exist.",
	}
}

// measureLeader holds if this program is not the leader and knows of no other leader, for example
// while the registry is not connected.
func measureLeader(m, _ *Monitor) number {
	s := m.stats()
	return boolMeasure(m.options.Instance != "" && !s.ActsAsLeader.Load() && !(s.OtherLeader.Load() && s.RegistryUp()))
}

func leaderMessage(m *Monitor, p *problem) message {
	msg := message{
		title:  "There may be no leader",
		detail: fmt.Sprintf("The holder of %s is unknown while %s is not connected, so this program neither pushes nor publishes l2c events.", m.options.Instance, m.options.Registry),
		check:  "the connection to it: once it is restored, there is soon a leader.",
	}
	switch {
	case !m.stats().RegistryUp():
	case m.stats().NoLease.Load():
		msg.detail = fmt.Sprintf("%s has no lease: it was created manually, and nothing will ever delete it. This program neither pushes nor publishes l2c events, and no other program can become the leader.", m.options.Instance)
		msg.check = "if no program needs it, run: etcdctl del " + m.options.Instance
	default:
		msg.detail = fmt.Sprintf("This program cannot confirm that it holds %s, and knows of no other holder, so it neither pushes nor publishes l2c events.", m.options.Instance)
		msg.check = "the program's log has the reason: a missing permission, or a server that responds late."
	}
	return msg
}

// pushCounter counts the pushes that failed since the last one that succeeded.
type pushCounter struct{ ok, failed, since uint64 }

func (p *pushCounter) update(s *stats.Stats) {
	if ok := s.PushOK.Load(); ok != p.ok {
		p.ok, p.since = ok, s.PushError.Load()
	}
	p.failed = s.PushError.Load() - p.since
}

func measurePush(m, _ *Monitor) number { return fleet.Some(float64(m.pushes.failed)) }

func pushMessage(m *Monitor, p *problem) message {
	last := "No push has succeeded yet"
	if at := m.stats().LastPush.Load(); at != 0 {
		last = "The last successful push was " + formatDuration(m.sampledAt.Sub(time.Unix(0, at))) + " ago"
	}
	return message{
		title:  "Pushes fail",
		detail: fmt.Sprintf("%s pushes to %s have failed in a row. %s.", formatCount(m.pushes.failed), m.options.Gateway, last),
		check:  "is the Pushgateway up, and does it accept the pushes? The log says why the first push failed.",
	}
}

func measureWebConfig(m, _ *Monitor) number { return boolMeasure(m.webConfigError != "") }

func webConfigMessage(m *Monitor, p *problem) message {
	return message{
		title:  "The web configuration is not in force",
		detail: fmt.Sprintf("%s: %s. The configuration from before is still in force.", m.options.WebFile, m.webConfigError),
		check:  "is the file empty, or only partly written? It is applied as soon as it is complete. A configuration that demands less of clients than before needs a restart.",
	}
}

func limitMessage(m *Monitor, p *problem) message      { return limitText(m, "is") }
func limitEndedMessage(m *Monitor, p *problem) message { return limitText(m, "was") }

func limitText(m *Monitor, verb string) message {
	var kinds []string
	for _, l := range stats.Limits() {
		if n := m.stats().Refused(l); n > 0 {
			kinds = append(kinds, fmt.Sprintf("%s: %s", l, formatCount(n)))
		}
	}
	workersAlone := m.stats().AllRefused() == m.stats().Refused(stats.WorkerLimit)
	return message{
		title: "There " + verb + " no room for " + ifElse(workersAlone, "more than "+plural(m.options.Limit, "worker"), "everything that is registered or published"),
		detail: fmt.Sprintf("In the last 15 min workers, replies or events were rejected %s. Since the start, by kind: %s.",
			plural(m.counters[counterOverLimit].sum(), "time"), strings.Join(kinds, ", ")),
		check: "is the fleet that large? Then raise --max-workers. If not, something registers or publishes invented names and ids.",
	}
}

func measurePlanes(m, _ *Monitor) number {
	return boolMeasure(len(m.options.Fleet.Diagnostics.PlaneMismatches()) > 0)
}

func planesMessage(m *Monitor, p *problem) message {
	mismatches := m.options.Fleet.Diagnostics.PlaneMismatches()
	var all []string
	for _, component := range slices.Sorted(maps.Keys(mismatches)) {
		all = append(all, component+": "+mismatches[component])
	}
	var rows []*row
	for i := range m.rows {
		ep := m.rows[i].endpoint
		if _, found := mismatches[strings.TrimPrefix(ep.Namespace+"/"+ep.Component, "/")]; found {
			rows = append(rows, &m.rows[i])
		}
	}
	return message{
		title:  "Workers and routers are on different event planes",
		detail: strings.Join(all[:min(maxListed, len(all))], "; ") + ifElse(len(all) > maxListed, "; and "+formatCount(len(all)-maxListed)+" more", "") + ". Those routers do not receive KV events, and route requests as if nothing were cached.",
		check:  "set DYN_EVENT_PLANE to the same value for every worker, router and frontend.",
		rows:   rows,
	}
}

func dropsMessage(m *Monitor, p *problem) message {
	return message{
		title:  ifElse(m.counters[counterDrops].sum() == 1, "1 message was dropped", formatCount(m.counters[counterDrops].sum())+" messages were dropped"),
		detail: "The NATS client's queue was full in the last 15 min. Loads may be old, and hit rates lack the lost messages.",
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
		one, more = "message or line of a worker's metrics", "messages or lines of workers' metrics"
	}
	n := m.counters[counterRejects].sum()
	return message{
		title:  formatCount(n) + " " + ifElse(n == 1, one, more) + " could not be read",
		detail: "The count covers the last 15 min. Since the start, by kind and reason: " + strings.Join(all, ", ") + ".",
		check:  "is a release newer than this program, or does something else publish on the same subjects? With DYN_LOG=info,metrics=debug the log has each with its reason.",
	}
}

func noWorkerMessage(m *Monitor, p *problem) message {
	return message{
		title:  "An engine did not know its worker's id",
		detail: fmt.Sprintf("In the last 15 min forward passes without a worker's id arrived %s, and could not be shown.", plural(m.counters[counterNoWorker].sum(), "time")),
		check:  "how is the engine started? Dynamo's own launchers pass the id.",
	}
}

func gapsMessage(m *Monitor, p *problem) message {
	missing := m.counters[counterGaps].sum()
	var all []string
	var rows []*row
	for _, gap := range slices.Backward(m.options.Fleet.Diagnostics.Gaps()) {
		publisher, of := m.publisherOf(gap.Publisher)
		rows = append(rows, of...)
		all = append(all, fmt.Sprintf("%s skipped from %s to %s (%s, %s ago)", publisher, formatCount(gap.After), formatCount(gap.Before),
			strings.ReplaceAll(gap.Kind.String(), "_", " "), formatDuration(m.sampledAt.Sub(gap.At))))
	}
	return message{
		title:    ifElse(missing == 1, "1 event is missing", formatCount(missing)+" events are missing"),
		detail:   "The count covers the last 15 min. The latest: " + summarizeStrings(all) + ".",
		check:    "did the publisher's network fail, or does it send more than a subscriber can read? With ZeroMQ, a few missing events just after connecting are normal.",
		severity: ifElse(float64(missing) > 0.01*m.eventsInHistory(), severityWarn, severityInfo),
		rows:     rows,
	}
}

// publisherOf returns the name of an event's publisher, and its rows if it is a worker. Up to 1.3
// the id is a worker's. Later it is the id of a channel, which does not identify the worker.
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
