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
func (m *Monitor) writeSnapshot(d *jsonWriter, history bool) {
	d.open('{')
	d.text("namespace", string(m.options.Namespaces))
	d.int("now", m.sampledAt.UnixMilli())
	d.field("interval")
	d.float(sampleInterval.Seconds(), 1000)
	d.text("version", m.options.Version)
	m.writeConnected(d)
	m.writeLeader(d)
	m.writeFleet(d)
	m.writeEndpoints(d)
	d.field("workers")
	d.open('[')
	begin := len(d.b)
	for i := range m.rows {
		if len(d.b)-begin >= maxRowBytes {
			m.unwrittenRows = len(m.rows) - i
			break
		}
		m.writeRow(d, &m.rows[i])
	}
	d.close(']')
	m.writeProblems(d)
	m.writeLeftOut(d)
	if m.isEmpty() {
		m.writeEmptyState(d)
	}
	if history {
		m.writeHistory(d)
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
func (m *Monitor) systemStatusOf(name string, l *stats.ConnState) systemStatus {
	return systemStatus{name: name, up: l.Up(), detail: m.options.Servers[name], why: l.LastError(), lost: !l.Up() && l.Disconnects() > 0}
}

// systems are those in use. NATS, which has a default address, is where something of
// the namespace comes over it, or it is there.
func (m *Monitor) systemStatuses() (all []systemStatus) {
	t := m.stats()
	if t.NATS.Used() && (t.NATS.Up() || m.usesNATS) {
		nats := m.systemStatusOf("nats", &t.NATS)
		nats.refused = !nats.up && len(m.options.Fleet.Diagnostics.RefusedSubjects(true)) > 0
		all = append(all, nats)
	}
	for name, link := range registries(t) {
		if link.Used() { // one of them at most
			all = append(all, m.systemStatusOf(name, link))
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

func (m *Monitor) writeConnected(d *jsonWriter) {
	d.field("connected")
	d.open('{')
	for _, s := range m.systemStatuses() {
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

func (m *Monitor) writeLeader(d *jsonWriter) {
	role, detail := "standby", "who holds "+m.options.Instance+" cannot be known now"
	switch t := m.stats(); {
	case m.options.Instance == "":
		role, detail = "single", "nothing here tells several programs apart: run one"
	case t.ActsAsLeader.Load():
		role, detail = "leader", "holds "+m.options.Instance
	case t.NoLease.Load() && t.RegistryUp():
		detail = m.options.Instance + " was put by hand, and hangs on no lease"
	case t.OtherLeader.Load() && t.RegistryUp():
		detail = "another program holds " + m.options.Instance
	case t.Leader.Load():
		detail = "has taken " + m.options.Instance + ", and leads when no other program can any more: in 2 s at most"
	}
	d.field("leader")
	d.open('{')
	d.text("role", role)
	d.text("detail", detail)
	d.close('}')
}

func (m *Monitor) writeFleet(d *jsonWriter) {
	agg := &m.overall
	d.field("fleet")
	d.open('{')
	writeStates(d, agg)
	d.fraction("loadMean", agg.kvUsage.Opt(agg.kvUsage.Mean))
	d.fraction("loadStd", agg.kvUsage.Opt(agg.kvUsage.Std))
	d.fraction("loadMin", agg.kvUsage.Opt(agg.kvUsage.Min))
	d.fraction("loadMax", agg.kvUsage.Opt(agg.kvUsage.Max))
	d.number("blocksMean", agg.kvBlocks.Opt(agg.kvBlocks.Mean), 10)
	d.number("blocksStd", agg.kvBlocks.Opt(agg.kvBlocks.Std), 10)
	d.fraction("imbalance", m.worstImbalance())
	d.fraction("hitRate", agg.hitsRecent.rate())
	d.fraction("hitRateTotal", agg.hitsTotal.rate())
	if agg.waiting.OK {
		d.number("waiting", agg.waiting.number, 1)
		d.int("waitingWorkers", int64(agg.waitingWorkers))
		d.int("waitingReported", int64(agg.waiting.workers))
	}
	d.number("eventsPerSecond", fleet.Some(m.eventRate.perSecond()), 10)
	d.int("gaps", int64(m.counters[counterGaps].sum()))
	d.int("drops", int64(m.counters[counterDrops].sum()))
	d.close('}')
}

func writeStates(d *jsonWriter, agg *aggregate) {
	d.field("states")
	d.open('{')
	d.int("answering", int64(agg.answering))
	d.int("silent", int64(agg.silent))
	d.int("unregistered", int64(agg.unregistered))
	d.int("malformed", int64(agg.malformed))
	d.close('}')
}

func (m *Monitor) writeEndpoints(d *jsonWriter) {
	d.field("endpoints")
	d.open('[')
	for _, ep := range m.endpoints {
		if !ep.counted && ep.start == ep.end {
			continue // of which only hits are left
		}
		agg := &ep.aggregate
		d.open('{')
		writeEndpoint(d, ep.Endpoint)
		d.int("workers", int64(agg.workers()))
		writeStates(d, agg)
		d.fraction("loadMean", agg.kvUsage.Opt(agg.kvUsage.Mean))
		d.fraction("loadStd", agg.kvUsage.Opt(agg.kvUsage.Std))
		d.fraction("slotsMean", agg.slotUsage.Opt(agg.slotUsage.Mean))
		d.fraction("slotsStd", agg.slotUsage.Opt(agg.slotUsage.Std))
		d.fraction("imbalance", ep.aggregate.kvBlocks.Imbalance())
		d.fraction("hitRate", agg.hitsRecent.rate())
		d.number("waiting", agg.waiting.number, 1)
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

func (m *Monitor) writeRow(d *jsonWriter, r *row) {
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
	d.text("model", cmp.Or(r.model, m.options.Model))
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
	if age := r.lastLoadAge(m.now); r.load.known {
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

func (m *Monitor) writeProblems(d *jsonWriter) {
	d.field("problems")
	d.open('[')
	begin := len(d.b)
	for _, pm := range m.messages() {
		d.open('{')
		d.text("id", pm.id)
		d.text("kind", pm.kind)
		d.text("severity", string(pm.message.severity))
		d.text("title", pm.title)
		d.text("detail", pm.detail)
		d.text("check", pm.check)
		d.int("since", m.unixMilli(pm.since))
		d.field("workers")
		d.open('[')
		for _, r := range pm.message.rows {
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

func (m *Monitor) writeHistory(d *jsonWriter) {
	d.field("history")
	d.open('{')
	d.int("step", int64(historyStep.Seconds()))
	d.int("end", m.unixMilli(m.historyClock.lastDue))
	m.history.each(func(name string, values *floatHistory) {
		m.writeSamples(d, name, func(slot int) float64 { return float64(values[slot]) })
	})
	d.close('}')
}

// nothingYet reports whether no worker was there lately: then the page says what is
// looked for.
func (m *Monitor) isEmpty() bool {
	lost := func(ep *endpointStats) bool { return ep.lostWorkers(m) > 0 }
	return len(m.rows) == 0 && !slices.ContainsFunc(m.endpoints, lost)
}

// mostSeen bounds what is listed of what is registered.
const maxListedEndpoints = 50

func (m *Monitor) writeEmptyState(d *jsonWriter) {
	f, t := m.options.Fleet, m.options.Fleet.Target()
	census := f.WorkerCounts()
	d.field("looking")
	d.open('{')
	d.text("namespace", string(m.options.Namespaces))
	d.text("component", t.Component)
	d.text("endpoint", t.Name)
	d.text("why", strings.Join(m.missing, ", "))
	m.writeDisconnected(d)
	d.field("asks")
	d.strings(m.pollSubjects(census))
	d.field("watches")
	d.strings(m.options.Watches)
	d.field("sees")
	d.open('[')
	for _, c := range census[:min(len(census), maxListedEndpoints)] {
		d.open('{')
		m.writeQualifiedEndpoint(d, c.Endpoint)
		d.int("instances", int64(c.Workers))
		d.close('}')
	}
	d.close(']')
	m.writeNearest(d, t, census)
	if len(m.disconnected()) == 0 { // else it would find nothing there either
		d.text("mock", m.options.Mock)
	}
	d.close('}')
}

// notConnected is what workers would be seen by, and is away: NATS too where nothing that is known
// so far uses it.
func (m *Monitor) disconnected() (all []systemStatus) {
	t := m.stats()
	if t.NATS.Used() && !t.NATS.Disabled() && !t.NATS.Up() {
		all = append(all, m.systemStatusOf("nats", &t.NATS))
	}
	for name, link := range registries(t) {
		if link.Used() && !link.Up() {
			all = append(all, m.systemStatusOf(name, link))
		}
	}
	return all
}

func (m *Monitor) writeDisconnected(d *jsonWriter) {
	all := m.disconnected()
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
