package glance

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
func (g *Glance) writeSnapshot(d *doc, history bool) {
	d.open('{')
	d.text("namespace", string(g.o.Namespaces))
	d.int("now", g.at.UnixMilli())
	d.field("interval")
	d.float(interval.Seconds(), 1000)
	d.text("version", g.o.Version)
	g.writeConnected(d)
	g.writeLeader(d)
	g.writeFleet(d)
	g.writeEndpoints(d)
	d.field("workers")
	d.open('[')
	begin := len(d.b)
	for i := range g.rows {
		if len(d.b)-begin >= mostText {
			g.unwritten = len(g.rows) - i
			break
		}
		g.writeRow(d, &g.rows[i])
	}
	d.close(']')
	g.writeProblems(d)
	g.writeLeftOut(d)
	if g.nothingYet() {
		g.writeLooking(d)
	}
	if history {
		g.writeHistory(d)
	}
	d.close('}')
}

// system is something that the program is connected to, or should be.
type system struct {
	name    string
	on      bool
	refused bool // it is there, and denies what is required
	detail  string
	why     string // it is not on, as far as that is known
	lost    bool   // it was on before
}

// systemOf is one that is connected to, or not, by its link.
func (g *Glance) systemOf(name string, l *stats.ConnState) system {
	return system{name: name, on: l.Up(), detail: g.o.Servers[name], why: l.LastError(), lost: !l.Up() && l.Disconnects() > 0}
}

// systems are those in use. NATS, which has a default address, is where something of
// the namespace comes over it, or it is there.
func (g *Glance) systems() (all []system) {
	t := g.tally()
	if t.NATS.Used() && (t.NATS.Up() || g.usesNATS) {
		nats := g.systemOf("nats", &t.NATS)
		nats.refused = !nats.on && len(g.o.Fleet.Diagnostics.RefusedSubjects(true)) > 0
		all = append(all, nats)
	}
	for name, link := range registries(t) {
		if link.Used() { // one of them at most
			all = append(all, g.systemOf(name, link))
		}
	}
	if t.ZMQ.Used() {
		up, want := t.PublishersUp.Load(), t.Publishers.Load()
		detail := "every publisher"
		if up < want {
			detail = fmt.Sprintf("%s of %s publishers", thousands(up), thousands(want))
		}
		all = append(all, system{name: "zmq", on: up >= want, detail: detail})
	}
	return all
}

// registries are where workers may register, by their names here.
func registries(t *stats.Stats) map[string]*stats.ConnState {
	return map[string]*stats.ConnState{"etcd": &t.Etcd, "file": &t.Files, "kubernetes": &t.Kubernetes}
}

func (g *Glance) writeConnected(d *doc) {
	d.field("connected")
	d.open('{')
	for _, s := range g.systems() {
		d.field(s.name)
		d.open('{')
		d.bool("on", s.on)
		if s.refused {
			d.bool("refused", true)
		}
		d.text("detail", s.detail)
		s.writeAway(d)
		d.close('}')
	}
	d.close('}')
}

// writeAway says why something is not connected.
func (s *system) writeAway(d *doc) {
	if s.on {
		return
	}
	d.bool("lost", s.lost)
	d.text("why", s.why)
}

func (g *Glance) writeLeader(d *doc) {
	role, detail := "standby", "who holds "+g.o.Instance+" cannot be known now"
	switch t := g.tally(); {
	case g.o.Instance == "":
		role, detail = "single", "nothing here tells several programs apart: run one"
	case t.ActsAsLeader.Load():
		role, detail = "leader", "holds "+g.o.Instance
	case t.NoLease.Load() && t.RegistryUp():
		detail = g.o.Instance + " was put by hand, and hangs on no lease"
	case t.OtherLeader.Load() && t.RegistryUp():
		detail = "another program holds " + g.o.Instance
	case t.Leader.Load():
		detail = "has taken " + g.o.Instance + ", and leads when no other program can any more: in 2 s at most"
	}
	d.field("leader")
	d.open('{')
	d.text("role", role)
	d.text("detail", detail)
	d.close('}')
}

func (g *Glance) writeFleet(d *doc) {
	s := &g.all
	d.field("fleet")
	d.open('{')
	writeStates(d, s)
	d.fraction("loadMean", s.use.Opt(s.use.Mean))
	d.fraction("loadStd", s.use.Opt(s.use.Std))
	d.fraction("loadMin", s.use.Opt(s.use.Min))
	d.fraction("loadMax", s.use.Opt(s.use.Max))
	d.number("blocksMean", s.blocks.Opt(s.blocks.Mean), 10)
	d.number("blocksStd", s.blocks.Opt(s.blocks.Std), 10)
	d.fraction("imbalance", g.imbalance())
	d.fraction("hitRate", s.last.rate())
	d.fraction("hitRateTotal", s.total.rate())
	if s.waiting.OK {
		d.number("waiting", s.waiting.number, 1)
		d.int("waitingWorkers", int64(s.waitingWorkers))
		d.int("waitingReported", int64(s.waiting.workers))
	}
	d.number("eventsPerSecond", fleet.Some(g.events.perSecond()), 10)
	d.int("gaps", int64(g.flows[gaps].sum()))
	d.int("drops", int64(g.flows[drops].sum()))
	d.close('}')
}

func writeStates(d *doc, s *sums) {
	d.field("states")
	d.open('{')
	d.int("answering", int64(s.answering))
	d.int("silent", int64(s.silent))
	d.int("unregistered", int64(s.unregistered))
	d.int("malformed", int64(s.malformed))
	d.close('}')
}

func (g *Glance) writeEndpoints(d *doc) {
	d.field("endpoints")
	d.open('[')
	for _, p := range g.order {
		if !p.counted && p.start == p.end {
			continue // of which only hits are left
		}
		s := &p.sums
		d.open('{')
		writeEndpoint(d, p.Endpoint)
		d.int("workers", int64(s.workers()))
		writeStates(d, s)
		d.fraction("loadMean", s.use.Opt(s.use.Mean))
		d.fraction("loadStd", s.use.Opt(s.use.Std))
		d.fraction("slotsMean", s.slots.Opt(s.slots.Mean))
		d.fraction("slotsStd", s.slots.Opt(s.slots.Std))
		d.fraction("imbalance", p.sums.blocks.Imbalance())
		d.fraction("hitRate", s.last.rate())
		d.number("waiting", s.waiting.number, 1)
		d.close('}')
	}
	d.close(']')
}

// writeEndpoint has the namespace where several are watched.
func writeEndpoint(d *doc, e fleet.Endpoint) {
	d.text("namespace", e.Namespace)
	d.text("component", e.Component)
	d.text("endpoint", e.Name)
}

func (g *Glance) writeRow(d *doc, r *row) {
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
	writeEndpoint(d, r.of.Endpoint)
	if r.source.OK {
		d.text("source", r.source.V.String())
	}
	d.text("model", cmp.Or(r.model, g.o.Model))
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
	d.uint("waiting", r.load.waits)
	d.fraction("kvUse", r.load.use())
	d.fraction("hitRate", r.hitRate())
	d.fraction("hitRateTotal", r.hitRateTotal())
	if age := r.age(g.now); r.load.known {
		d.number("age", fleet.Some(r.load.age.Seconds()), 100)
	} else if age.OK {
		d.number("age", fleet.Some(age.V.Seconds()), 100)
	}
	d.close('}')
}

// key is a value, or an element of a list: what names the row.
func (d *doc) key(r *row) {
	if r.id.IsStatic() || r.elsewhere { // names of others
		d.string(string(r.appendKey(nil)))
		return
	}
	d.next()
	d.b = append(r.appendKey(append(d.b, '"')), '"')
}

func (g *Glance) writeProblems(d *doc) {
	d.field("problems")
	d.open('[')
	begin := len(d.b)
	for _, t := range g.said() {
		d.open('{')
		d.text("id", t.id)
		d.text("kind", t.kind)
		d.text("severity", string(t.words.severity))
		d.text("title", t.title)
		d.text("detail", t.detail)
		d.text("check", t.check)
		d.int("since", g.wall(t.since))
		d.field("workers")
		d.open('[')
		for _, r := range t.words.rows {
			if len(d.b)-begin >= mostNamed {
				break
			}
			d.key(r)
		}
		d.close(']')
		d.close('}')
	}
	d.close(']')
}

func (g *Glance) writeHistory(d *doc) {
	d.field("history")
	d.open('{')
	d.int("step", int64(step.Seconds()))
	d.int("end", g.wall(g.clock.last))
	g.series.each(func(name string, values *floats) {
		g.writeSamples(d, name, func(slot int) float64 { return float64(values[slot]) })
	})
	d.close('}')
}

// nothingYet reports whether no worker was there lately: then the page says what is
// looked for.
func (g *Glance) nothingYet() bool {
	lost := func(p *place) bool { return p.lost(g) > 0 }
	return len(g.rows) == 0 && !slices.ContainsFunc(g.order, lost)
}

// mostSeen bounds what is listed of what is registered.
const mostSeen = 50

func (g *Glance) writeLooking(d *doc) {
	f, t := g.o.Fleet, g.o.Fleet.Target()
	census := f.WorkerCounts()
	d.field("looking")
	d.open('{')
	d.text("namespace", string(g.o.Namespaces))
	d.text("component", t.Component)
	d.text("endpoint", t.Name)
	d.text("why", strings.Join(g.missing, ", "))
	g.writeMissing(d)
	d.field("asks")
	d.strings(g.asks(census))
	d.field("watches")
	d.strings(g.o.Watches)
	d.field("sees")
	d.open('[')
	for _, c := range census[:min(len(census), mostSeen)] {
		d.open('{')
		g.writePlace(d, c.Endpoint)
		d.int("instances", int64(c.Workers))
		d.close('}')
	}
	d.close(']')
	g.writeNearest(d, t, census)
	if len(g.notConnected()) == 0 { // else it would find nothing there either
		d.text("mock", g.o.Mock)
	}
	d.close('}')
}

// notConnected is what workers would be seen by, and is away: NATS too where nothing that is known
// so far uses it.
func (g *Glance) notConnected() (all []system) {
	t := g.tally()
	if t.NATS.Used() && !t.NATS.Disabled() && !t.NATS.Up() {
		all = append(all, g.systemOf("nats", &t.NATS))
	}
	for name, link := range registries(t) {
		if link.Used() && !link.Up() {
			all = append(all, g.systemOf(name, link))
		}
	}
	return all
}

func (g *Glance) writeMissing(d *doc) {
	all := g.notConnected()
	if len(all) == 0 {
		return
	}
	d.field("missing")
	d.open('[')
	for _, s := range all {
		d.open('{')
		d.text("system", s.name)
		d.text("detail", s.detail)
		s.writeAway(d)
		d.close('}')
	}
	d.close(']')
}
