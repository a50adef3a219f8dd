package glance

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
type flow struct {
	last  uint64
	fresh uint64          // since the last cut
	open  uint64          // in the step that is not over
	steps [samples]uint32 // in those before
	begun bool
}

// The counters whose flow is watched.
const (
	gaps = iota
	drops
	overLimit
	rejects
	nameless
	flowCount
)

// counters are what they stand at.
func counters(t *stats.Stats) [flowCount]uint64 {
	return [flowCount]uint64{
		gaps:      t.MissedEvents.Load(),
		drops:     t.Dropped(stats.QueueFull),
		overLimit: t.AllRefused() - t.Refused(stats.SubscriptionLimit), // which is a problem of its own
		rejects:   rejected(t),
		nameless:  t.Rejected(stats.ForwardPass, stats.NoWorker),
	}
}

// useless are the reasons that say that a message could not be read, and not only that
// there is no use for it.
var useless = [...]stats.Reason{stats.BadJSON, stats.BadName, stats.BadID, stats.BadLoad, stats.BadMsgpack, stats.BadFrames, stats.BadText, stats.TooLarge}

// rejected are the messages that could not be read. Answers to polls whose load cannot
// be are their workers' problem.
func rejected(t *stats.Stats) (n uint64) {
	for _, k := range stats.Kinds() {
		for _, r := range useless {
			if k != stats.StatsReply || r != stats.BadLoad {
				n += t.Rejected(k, r)
			}
		}
	}
	return n
}

// take notes what a counter stands at. What it stood at when we began is of before.
func (f *flow) take(n uint64) {
	if !f.begun {
		f.begun, f.last = true, n
	}
	f.fresh = n - f.last
	f.last, f.open = n, f.open+f.fresh
}

// close ends a step.
func (f *flow) close(slot int) { f.steps[slot], f.open = more(0, f.open), 0 }

func (f *flow) sum() uint64 {
	all := f.open
	for _, n := range f.steps {
		all += uint64(n)
	}
	return all
}

// flowing is the measure of a counter that should stand still.
func flowing(which int) func(*Glance, *Glance) number {
	return func(g, _ *Glance) number { return yes(g.flows[which].fresh > 0) }
}

func etcdAway(g, _ *Glance) number  { return yes(!g.tally().Etcd.Up()) }
func filesAway(g, _ *Glance) number { return yes(!g.tally().Files.Up()) }

func kubernetesAway(g, _ *Glance) number { return yes(!g.tally().Kubernetes.Up()) }

// natsAway: NATS matters if something of the namespace comes over it. Where it is there, and
// denies what is required, that is another problem.
func natsAway(g, _ *Glance) number {
	return yes(!g.tally().NATS.Up() && g.usesNATS && len(g.o.Fleet.Diagnostics.RefusedSubjects(true)) == 0)
}

// away is a server that is not connected, with why, as far as that is known.
func (g *Glance) away(name string) string {
	link := registries(g.tally())[name]
	if link == nil {
		link = &g.tally().NATS
	}
	return g.o.Servers[name] + either(link.LastError() == "", "", " ("+link.LastError()+")")
}

func sayEtcd(g *Glance, p *problem) words {
	return words{
		title:  "etcd is not connected",
		detail: g.away("etcd") + ": who comes and goes is not noticed; the fleet is shown as it was known.",
		check:  "is it up, and can it be reached from here? Compare ETCD_ENDPOINTS here and at the workers.",
	}
}

func sayFiles(g *Glance, p *problem) words {
	return words{
		title:  "The directory of workers cannot be read",
		detail: g.away("file") + ": who comes and goes is not noticed; the fleet is shown as it was known.",
		check:  "does it exist, is it mounted here, and may this program read it? Compare --file-kv (DYN_FILE_KV) here and DYN_FILE_KV at the workers. The log has the error.",
	}
}

func sayKubernetes(g *Glance, p *problem) words {
	return words{
		title:  "The Kubernetes API cannot be read",
		detail: g.away("kubernetes") + ": who comes and goes is not noticed; the fleet is shown as it was known.",
		check:  "is it up, and may this program's service account list and watch what it needs? The log names a right that is missing.",
	}
}

func sayNATS(g *Glance, p *problem) words {
	return words{
		title:  "NATS is not connected",
		detail: g.away("nats") + ": no poll is answered and no event over NATS is heard; loads are as old as that.",
		check:  "is it up, and can it be reached from here? Compare NATS_SERVER here and at the workers.",
	}
}

// subjectsRefused are those that NATS denies, whether they are required or not.
func subjectsRefused(g, _ *Glance) number {
	n := &g.o.Fleet.Diagnostics
	return fleet.Some(float64(len(n.RefusedSubjects(true)) + len(n.RefusedSubjects(false))))
}

func sayRefused(g *Glance, p *problem) words {
	n := &g.o.Fleet.Diagnostics
	required, optional := n.RefusedSubjects(true), n.RefusedSubjects(false)
	matters := len(required) > 0 && g.usesNATS
	w := words{
		title: "NATS denies a permission",
		detail: fmt.Sprintf("%s does not let this program use %s: ", g.o.Servers["nats"], and(append(required, optional...))) +
			either(matters, "what comes there is not heard, or workers are not asked. Loads and hit rates are as old as that.", "what not every fleet sends is not heard, or l2c events are not published. All else goes on."),
		check:    "grant the NATS user of this program what SECURITY.md lists. It tries again by itself, every few seconds.",
		severity: either(matters, bad, info),
	}
	return w
}

// awayFor is how long a publisher may be away: one that was killed stays announced for
// as long as its lease.
const awayFor = 45 * time.Second

func (g *Glance) publishersAway() []fleet.Channel {
	if g.tally().PublishersUp.Load() >= g.tally().Publishers.Load() {
		return nil
	}
	return g.o.Fleet.Diagnostics.UnreachableSince(g.at.Add(-awayFor))
}

func publishersAway(g, _ *Glance) number { return fleet.Some(float64(len(g.publishersAway()))) }

func sayPublishers(g *Glance, p *problem) words {
	var all []string
	for _, c := range g.publishersAway() {
		all = append(all, c.Address+either(c.Endpoint.Component == "", "", " of "+strings.TrimSuffix(c.Endpoint.String(), "/")))
	}
	all = slices.Compact(all)
	up, want := g.tally().PublishersUp.Load(), g.tally().Publishers.Load()
	return words{
		title:    either(up == 0, "No ZMQ publisher can be reached", fmt.Sprintf("%s of %s ZMQ publishers can be reached", thousands(up), thousands(want))),
		detail:   fmt.Sprintf("These are announced and do not answer: %s. Their events are lost.", list(all)),
		check:    "is there a network policy between this program and the workers? Each publishes on a port of its own. A process that died without taking its keys back also looks like this.",
		severity: either(up == 0, bad, warn),
	}
}

func publishersWaiting(g, _ *Glance) number { return yes(g.tally().PublishersWaiting.Load() > 0) }

func sayPublishersWaiting(g *Glance, p *problem) words {
	waiting, want := g.tally().PublishersWaiting.Load(), g.tally().Publishers.Load()
	return words{
		title:  fmt.Sprintf("%s of %s ZMQ publishers have to wait", thousands(waiting), thousands(want)),
		detail: "So many connections at once are not allowed, or so many to one host. Nothing is heard of those that wait, and their events are lost.",
		check:  "is the fleet that large? Then raise the limit on open files (ulimit -n), or --max-workers. Else publishers are announced that are not there.",
	}
}

// nobodyLeads: a program that does not lead itself knows of no other that does, as while the
// registry is away.
func nobodyLeads(g, _ *Glance) number {
	t := g.tally()
	return yes(g.o.Instance != "" && !t.ActsAsLeader.Load() && !(t.OtherLeader.Load() && t.RegistryUp()))
}

func sayLeader(g *Glance, p *problem) words {
	w := words{
		title:  "There may be no leader",
		detail: fmt.Sprintf("Who holds %s cannot be known while %s is away, so this program neither pushes nor publishes l2c events.", g.o.Instance, g.o.Registry),
		check:  "the connection to it: with that a leader is soon back.",
	}
	switch {
	case !g.tally().RegistryUp():
	case g.tally().NoLease.Load():
		w.detail = fmt.Sprintf("%s hangs on no lease: it was put by hand, and nothing will ever delete it. This program neither pushes nor publishes l2c events, and no other can lead.", g.o.Instance)
		w.check = "is there no program that needs it? Then: etcdctl del " + g.o.Instance
	default:
		w.detail = fmt.Sprintf("This program cannot have %s confirmed, and knows of no other that holds it, so it neither pushes nor publishes l2c events.", g.o.Instance)
		w.check = "the program's log says what is in the way: a right that is missing, or a server that answers late."
	}
	return w
}

// pushes are those since the last that succeeded.
type pushes struct{ ok, failed, since uint64 }

func (p *pushes) take(t *stats.Stats) {
	if ok := t.PushOK.Load(); ok != p.ok {
		p.ok, p.since = ok, t.PushError.Load()
	}
	p.failed = t.PushError.Load() - p.since
}

func failedPushes(g, _ *Glance) number { return fleet.Some(float64(g.pushes.failed)) }

func sayPush(g *Glance, p *problem) words {
	last := "None has succeeded yet"
	if at := g.tally().LastPush.Load(); at != 0 {
		last = "The last that succeeded was " + lasting(g.at.Sub(time.Unix(0, at))) + " ago"
	}
	return words{
		title:  "Pushes fail",
		detail: fmt.Sprintf("%s pushes to %s have failed in a row. %s.", thousands(g.pushes.failed), g.o.Gateway, last),
		check:  "is the Pushgateway up, and does it take what it is sent? The log says why the first push failed.",
	}
}

func webConfigWrong(g, _ *Glance) number { return yes(g.webWrong != "") }

func sayWebConfig(g *Glance, p *problem) words {
	return words{
		title:  "The web configuration cannot be used as it is",
		detail: fmt.Sprintf("%s: %s. What it said before is still in force.", g.o.WebFile, g.webWrong),
		check:  "was it emptied, or written in part? As soon as it is whole it is taken over. One that demands less of clients than before is in force after a restart.",
	}
}

func sayLimit(g *Glance, p *problem) words  { return noRoom(g, "is") }
func hadNoRoom(g *Glance, p *problem) words { return noRoom(g, "was") }

func noRoom(g *Glance, is string) words {
	var kinds []string
	for _, l := range stats.Limits() {
		if n := g.tally().Refused(l); n > 0 {
			kinds = append(kinds, fmt.Sprintf("%s: %s", l, thousands(n)))
		}
	}
	workersAlone := g.tally().AllRefused() == g.tally().Refused(stats.WorkerLimit)
	return words{
		title: "There " + is + " no room for " + either(workersAlone, "more than "+many(g.o.Limit, "worker"), "all that "+is+" there"),
		detail: fmt.Sprintf("In the last 15 min %s of workers, answers and events were turned away. Since the start, by kind: %s.",
			thousands(g.flows[overLimit].sum()), strings.Join(kinds, ", ")),
		check: "is the fleet that large? Then raise --max-workers. Else something registers or publishes made-up names and ids.",
	}
}

func clashing(g, _ *Glance) number { return yes(len(g.o.Fleet.Diagnostics.PlaneMismatches()) > 0) }

func sayPlanes(g *Glance, p *problem) words {
	clashes := g.o.Fleet.Diagnostics.PlaneMismatches()
	var all []string
	for _, component := range slices.Sorted(maps.Keys(clashes)) {
		all = append(all, component+": "+clashes[component])
	}
	var rows []*row
	for i := range g.rows {
		of := g.rows[i].of
		if _, there := clashes[strings.TrimPrefix(of.Namespace+"/"+of.Component, "/")]; there {
			rows = append(rows, &g.rows[i])
		}
	}
	return words{
		title:  "Workers and routers are on different event planes",
		detail: strings.Join(all[:min(few, len(all))], "; ") + either(len(all) > few, "; and "+thousands(len(all)-few)+" more", "") + ". Those routers do not hear what is cached, and send requests as if nothing were.",
		check:  "set DYN_EVENT_PLANE to the same value for every worker, router and frontend.",
		rows:   rows,
	}
}

func sayDrops(g *Glance, p *problem) words {
	return words{
		title:  either(g.flows[drops].sum() == 1, "1 message was dropped here", thousands(g.flows[drops].sum())+" messages were dropped here"),
		detail: "In the last 15 min, because the NATS client's queue was full: loads may be old, and hit rates lack what was lost.",
		check:  "is this program short of CPU? Give it a core.",
	}
}

func sayRejects(g *Glance, p *problem) words {
	var all []string
	for _, k := range stats.Kinds() {
		for _, r := range useless {
			if n := g.tally().Rejected(k, r); n > 0 && (k != stats.StatsReply || r != stats.BadLoad) {
				all = append(all, fmt.Sprintf("%s: %s (%s)", strings.ReplaceAll(k.String(), "_", " "), thousands(n), r))
			}
		}
	}
	one, more := "message", "messages"
	if g.tally().Rejected(stats.WorkerMetrics, stats.BadText) > 0 {
		one, more = "message or line of a worker's page", "messages or lines of workers' pages"
	}
	n := g.flows[rejects].sum()
	return words{
		title:  thousands(n) + " " + either(n == 1, one, more) + " could not be read",
		detail: "In the last 15 min. Since the start, by kind and reason: " + strings.Join(all, ", ") + ".",
		check:  "a release that is newer than this program, or a stranger at the same place? With DYN_LOG=info,metrics=debug the log has each with its reason.",
	}
}

func sayNameless(g *Glance, p *problem) words {
	return words{
		title:  "An engine did not know its worker's id",
		detail: fmt.Sprintf("%s of forward passes in the last 15 min named no worker, and could not be shown.", thousands(g.flows[nameless].sum())),
		check:  "how is the engine started? Dynamo's own launchers tell it the id.",
	}
}

func sayGaps(g *Glance, p *problem) words {
	missing := g.flows[gaps].sum()
	var all []string
	var rows []*row
	for _, gap := range slices.Backward(g.o.Fleet.Diagnostics.Gaps()) {
		who, of := g.publisher(gap.Publisher)
		rows = append(rows, of...)
		all = append(all, fmt.Sprintf("%s skipped from %s to %s (%s, %s ago)", who, thousands(gap.After), thousands(gap.Before),
			strings.ReplaceAll(gap.Kind.String(), "_", " "), lasting(g.at.Sub(gap.At))))
	}
	return words{
		title:    either(missing == 1, "1 event is missing", thousands(missing)+" events are missing"),
		detail:   "In the last 15 min. The last: " + list(all) + ".",
		check:    "did the publisher's network drop, or does it send more than a subscriber can read? A few that are missing when a connection has just been made are normal on ZeroMQ.",
		severity: either(float64(missing) > 0.01*g.eventsKept(), warn, info),
		rows:     rows,
	}
}

// publisher is who an event's publisher is: to 1.3 a worker, by its id; later one of a
// channel, whose worker is not known.
func (g *Glance) publisher(id uint64) (name string, rows []*row) {
	for i := range g.rows {
		if g.rows[i].id.Lease == id {
			rows = append(rows, &g.rows[i])
		}
	}
	hex := strconv.FormatUint(id, 16)
	if len(rows) > 0 {
		return hex, rows
	}
	if c, ok := g.o.Fleet.ChannelOf(id); ok {
		return strings.TrimSpace(fmt.Sprintf("publisher %s of %s %s", hex, strings.Trim(c.Endpoint.String(), "/"), c.Address)), nil
	}
	return "publisher " + hex, nil
}
