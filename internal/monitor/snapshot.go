package monitor

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// writeSnapshot writes the cut as JSON: the shape that openapi.json describes.
func (g *Monitor) writeSnapshot(d *jsonWriter, history bool) {
	d.open('{')
	d.text("namespace", string(g.options.Namespaces))
	d.int("now", g.sampledAt.UnixMilli())
	d.field("interval")
	d.float(sampleInterval.Seconds(), 1000)
	d.text("version", g.options.Version)
	g.writeConnected(d)
	g.writeLeader(d)
	g.writeFleet(d)
	g.writeEndpoints(d)
	d.field("workers")
	d.open('[')
	begin := len(d.b)
	for i := range g.rows {
		if len(d.b)-begin >= maxRowBytes {
			g.unwrittenRows = len(g.rows) - i
			break
		}
		g.writeRow(d, &g.rows[i])
	}
	d.close(']')
	g.writeProblems(d)
	g.writeLeftOut(d)
	if g.isEmpty() {
		g.writeEmptyState(d)
	}
	if history {
		g.writeHistory(d)
	}
	d.close('}')
}

// system is something that the program is connected to, or should be.
type systemStatus struct {
	name    string
	up      bool
	refused bool // it is there, and denies what is required
	detail  string
	why     string // it is not on, as far as that is known
	lost    bool   // it was on before
}

// systemOf is one that is connected to, or not, by its link.
func (g *Monitor) systemStatusOf(name string, l *stats.ConnState) systemStatus {
	return systemStatus{name: name, up: l.Up(), detail: g.options.Servers[name], why: l.LastError(), lost: !l.Up() && l.Disconnects() > 0}
}

// systems are those in use. NATS, which has a default address, is where something of
// the namespace comes over it, or it is there.
func (g *Monitor) systemStatuses() (all []systemStatus) {
	t := g.stats()
	if t.NATS.Used() && (t.NATS.Up() || g.usesNATS) {
		nats := g.systemStatusOf("nats", &t.NATS)
		nats.refused = !nats.up && len(g.options.Fleet.Diagnostics.RefusedSubjects(true)) > 0
		all = append(all, nats)
	}
	for name, link := range registries(t) {
		if link.Used() { // one of them at most
			all = append(all, g.systemStatusOf(name, link))
		}
	}
	if t.ZMQ.Used() {
		up, want := t.PublishersUp.Load(), t.Publishers.Load()
		detail := "every publisher"
		if up < want {
			detail = fmt.Sprintf("%s of %s publishers", formatCount(up), formatCount(want))
		}
		all = append(all, systemStatus{name: "zmq", up: up >= want, detail: detail})
	}
	return all
}

// registries are where workers may register, by their names here.
func registries(t *stats.Stats) map[string]*stats.ConnState {
	return map[string]*stats.ConnState{"etcd": &t.Etcd, "file": &t.Files, "kubernetes": &t.Kubernetes}
}

func (g *Monitor) writeConnected(d *jsonWriter) {
	d.field("connected")
	d.open('{')
	for _, s := range g.systemStatuses() {
		d.field(s.name)
		d.open('{')
		d.bool("on", s.up)
		if s.refused {
			d.bool("refused", true)
		}
		d.text("detail", s.detail)
		s.writeReason(d)
		d.close('}')
	}
	d.close('}')
}

// writeAway says why something is not connected.
func (s *systemStatus) writeReason(d *jsonWriter) {
	if s.up {
		return
	}
	d.bool("lost", s.lost)
	d.text("why", s.why)
}

func (g *Monitor) writeLeader(d *jsonWriter) {
	role, detail := "standby", "who holds "+g.options.Instance+" cannot be known now"
	switch t := g.stats(); {
	case g.options.Instance == "":
		role, detail = "single", "nothing here tells several programs apart: run one"
	case t.ActsAsLeader.Load():
		role, detail = "leader", "holds "+g.options.Instance
	case t.NoLease.Load() && t.RegistryUp():
		detail = g.options.Instance + " was put by hand, and hangs on no lease"
	case t.OtherLeader.Load() && t.RegistryUp():
		detail = "another program holds " + g.options.Instance
	case t.Leader.Load():
		detail = "has taken " + g.options.Instance + ", and leads when no other program can any more: in 2 s at most"
	}
	d.field("leader")
	d.open('{')
	d.text("role", role)
	d.text("detail", detail)
	d.close('}')
}

func (g *Monitor) writeFleet(d *jsonWriter) {
	s := &g.overall
	d.field("fleet")
	d.open('{')
	writeStates(d, s)
	d.fraction("loadMean", s.kvUsage.Opt(s.kvUsage.Mean))
	d.fraction("loadStd", s.kvUsage.Opt(s.kvUsage.Std))
	d.fraction("loadMin", s.kvUsage.Opt(s.kvUsage.Min))
	d.fraction("loadMax", s.kvUsage.Opt(s.kvUsage.Max))
	d.number("blocksMean", s.kvBlocks.Opt(s.kvBlocks.Mean), 10)
	d.number("blocksStd", s.kvBlocks.Opt(s.kvBlocks.Std), 10)
	d.fraction("imbalance", g.worstImbalance())
	d.fraction("hitRate", s.hitsRecent.rate())
	d.fraction("hitRateTotal", s.hitsTotal.rate())
	if s.waiting.OK {
		d.number("waiting", s.waiting.number, 1)
		d.int("waitingWorkers", int64(s.waitingWorkers))
		d.int("waitingReported", int64(s.waiting.workers))
	}
	d.number("eventsPerSecond", fleet.Some(g.eventRate.perSecond()), 10)
	d.int("gaps", int64(g.counters[counterGaps].sum()))
	d.int("drops", int64(g.counters[counterDrops].sum()))
	d.close('}')
}

func writeStates(d *jsonWriter, s *aggregate) {
	d.field("states")
	d.open('{')
	d.int("answering", int64(s.answering))
	d.int("silent", int64(s.silent))
	d.int("unregistered", int64(s.unregistered))
	d.int("malformed", int64(s.malformed))
	d.close('}')
}

func (g *Monitor) writeEndpoints(d *jsonWriter) {
	d.field("endpoints")
	d.open('[')
	for _, p := range g.endpoints {
		if !p.counted && p.start == p.end {
			continue // of which only hits are left
		}
		s := &p.aggregate
		d.open('{')
		writeEndpoint(d, p.Endpoint)
		d.int("workers", int64(s.workers()))
		writeStates(d, s)
		d.fraction("loadMean", s.kvUsage.Opt(s.kvUsage.Mean))
		d.fraction("loadStd", s.kvUsage.Opt(s.kvUsage.Std))
		d.fraction("slotsMean", s.slotUsage.Opt(s.slotUsage.Mean))
		d.fraction("slotsStd", s.slotUsage.Opt(s.slotUsage.Std))
		d.fraction("imbalance", p.aggregate.kvBlocks.Imbalance())
		d.fraction("hitRate", s.hitsRecent.rate())
		d.number("waiting", s.waiting.number, 1)
		d.close('}')
	}
	d.close(']')
}

// writeEndpoint has the namespace where several are watched.
func writeEndpoint(d *jsonWriter, e fleet.Endpoint) {
	d.text("namespace", e.Namespace)
	d.text("component", e.Component)
	d.text("endpoint", e.Name)
}

func (g *Monitor) writeRow(d *jsonWriter, r *row) {
	d.open('{')
	d.field("key")
	d.key(r)
	d.text("id", r.label)
	d.field("hex")
	if r.id.IsStatic() {
		d.string(r.id.Static)
	} else {
		d.b = append(strconv.AppendUint(append(d.b, '"'), r.id.Lease, 16), '"')
	}
	if r.rank != noRank {
		d.int("dp", r.rank)
	}
	writeEndpoint(d, r.endpoint.Endpoint)
	if r.source.OK {
		d.text("source", r.source.V.String())
	}
	d.text("model", cmp.Or(r.model, g.options.Model))
	d.text("state", r.state.String())
	// Each pair only whole, as in the metrics.
	if l := &r.load; l.kvActive.OK && l.kvTotal.OK {
		d.uint("kvActive", l.kvActive)
		d.uint("kvTotal", l.kvTotal)
	}
	if l := &r.load; l.slotsActive.OK && l.slotsTotal.OK {
		d.uint("slotsActive", l.slotsActive)
		d.uint("slotsTotal", l.slotsTotal)
	}
	d.uint("waiting", r.load.waitingRequests)
	d.fraction("kvUse", r.load.kvUsage())
	d.fraction("hitRate", r.hitRate())
	d.fraction("hitRateTotal", r.hitRateTotal())
	if age := r.lastLoadAge(g.now); r.load.known {
		d.number("age", fleet.Some(r.load.age.Seconds()), 100)
	} else if age.OK {
		d.number("age", fleet.Some(age.V.Seconds()), 100)
	}
	d.close('}')
}

// key is a value, or an element of a list: what names the row.
func (d *jsonWriter) key(r *row) {
	if r.id.IsStatic() || r.multiEndpoint { // names of others
		d.string(string(r.appendKey(nil)))
		return
	}
	d.comma()
	d.b = append(r.appendKey(append(d.b, '"')), '"')
}

func (g *Monitor) writeProblems(d *jsonWriter) {
	d.field("problems")
	d.open('[')
	begin := len(d.b)
	for _, t := range g.messages() {
		d.open('{')
		d.text("id", t.id)
		d.text("kind", t.kind)
		d.text("severity", string(t.message.severity))
		d.text("title", t.title)
		d.text("detail", t.detail)
		d.text("check", t.check)
		d.int("since", g.unixMilli(t.since))
		d.field("workers")
		d.open('[')
		for _, r := range t.message.rows {
			if len(d.b)-begin >= maxProblemBytes {
				break
			}
			d.key(r)
		}
		d.close(']')
		d.close('}')
	}
	d.close(']')
}

func (g *Monitor) writeHistory(d *jsonWriter) {
	d.field("history")
	d.open('{')
	d.int("step", int64(historyStep.Seconds()))
	d.int("end", g.unixMilli(g.historyClock.lastDue))
	g.history.each(func(name string, values *floatHistory) {
		g.writeSamples(d, name, func(slot int) float64 { return float64(values[slot]) })
	})
	d.close('}')
}

// nothingYet reports whether no worker was there lately: then the page says what is
// looked for.
func (g *Monitor) isEmpty() bool {
	lost := func(p *endpointStats) bool { return p.lostWorkers(g) > 0 }
	return len(g.rows) == 0 && !slices.ContainsFunc(g.endpoints, lost)
}

// mostSeen bounds what is listed of what is registered.
const maxListedEndpoints = 50

func (g *Monitor) writeEmptyState(d *jsonWriter) {
	f, t := g.options.Fleet, g.options.Fleet.Target()
	census := f.WorkerCounts()
	d.field("looking")
	d.open('{')
	d.text("namespace", string(g.options.Namespaces))
	d.text("component", t.Component)
	d.text("endpoint", t.Name)
	d.text("why", strings.Join(g.missing, ", "))
	g.writeDisconnected(d)
	d.field("asks")
	d.strings(g.pollSubjects(census))
	d.field("watches")
	d.strings(g.options.Watches)
	d.field("sees")
	d.open('[')
	for _, c := range census[:min(len(census), maxListedEndpoints)] {
		d.open('{')
		g.writeQualifiedEndpoint(d, c.Endpoint)
		d.int("instances", int64(c.Workers))
		d.close('}')
	}
	d.close(']')
	g.writeNearest(d, t, census)
	if len(g.disconnected()) == 0 { // else it would find nothing there either
		d.text("mock", g.options.Mock)
	}
	d.close('}')
}

// notConnected is what workers would be seen by, and is away: NATS too where nothing that is known
// so far uses it.
func (g *Monitor) disconnected() (all []systemStatus) {
	t := g.stats()
	if t.NATS.Used() && !t.NATS.Disabled() && !t.NATS.Up() {
		all = append(all, g.systemStatusOf("nats", &t.NATS))
	}
	for name, link := range registries(t) {
		if link.Used() && !link.Up() {
			all = append(all, g.systemStatusOf(name, link))
		}
	}
	return all
}

func (g *Monitor) writeDisconnected(d *jsonWriter) {
	all := g.disconnected()
	if len(all) == 0 {
		return
	}
	d.field("missing")
	d.open('[')
	for _, s := range all {
		d.open('{')
		d.text("system", s.name)
		d.text("detail", s.detail)
		s.writeReason(d)
		d.close('}')
	}
	d.close(']')
}
