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

// writeSnapshot writes the last sample as JSON, in the shape that openapi.json describes.
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

// systemStatus is the state of a server or registry that the program uses.
type systemStatus struct {
	name    string
	up      bool
	refused bool // it is reachable, and denies a required permission
	detail  string
	why     string // why it is not connected, if known
	lost    bool   // it was connected before
}

// systemStatusOf returns the status of a system from the state of its connection.
func (m *Monitor) systemStatusOf(name string, conn *stats.ConnState) systemStatus {
	return systemStatus{name: name, up: conn.Up(), detail: m.options.Servers[name], why: conn.LastError(), lost: !conn.Up() && conn.Disconnects() > 0}
}

// systemStatuses returns the systems in use. NATS has a default address, so it is listed only if
// it is connected or workers of the namespace use it.
func (m *Monitor) systemStatuses() (all []systemStatus) {
	s := m.stats()
	if s.NATS.Used() && (s.NATS.Up() || m.usesNATS) {
		nats := m.systemStatusOf("nats", &s.NATS)
		nats.refused = !nats.up && len(m.options.Fleet.Diagnostics.RefusedSubjects(true)) > 0
		all = append(all, nats)
	}
	for name, conn := range registries(s) {
		if conn.Used() { // at most one of them
			all = append(all, m.systemStatusOf(name, conn))
		}
	}
	if s.ZMQ.Used() {
		up, want := s.PublishersUp.Load(), s.Publishers.Load()
		detail := "all publishers"
		if up < want {
			detail = fmt.Sprintf("%s of %s publishers", formatCount(up), formatCount(want))
		}
		all = append(all, systemStatus{name: "zmq", up: up >= want, detail: detail})
	}
	return all
}

// registries returns the connections of the possible registries, by name.
func registries(s *stats.Stats) map[string]*stats.ConnState {
	return map[string]*stats.ConnState{"etcd": &s.Etcd, "file": &s.Files, "kubernetes": &s.Kubernetes}
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

// writeReason writes why a system is not connected.
func (s *systemStatus) writeReason(d *jsonWriter) {
	if s.up {
		return
	}
	d.bool("lost", s.lost)
	d.text("why", s.why)
}

func (m *Monitor) writeLeader(d *jsonWriter) {
	role, detail := "standby", "the holder of "+m.options.Instance+" is not known"
	switch s := m.stats(); {
	case m.options.Instance == "":
		role, detail = "single", "there is no leader election here: run only one program"
	case s.ActsAsLeader.Load():
		role, detail = "leader", "holds "+m.options.Instance
	case s.NoLease.Load() && s.RegistryUp():
		detail = m.options.Instance + " was created manually, and has no lease"
	case s.OtherLeader.Load() && s.RegistryUp():
		detail = "another program holds " + m.options.Instance
	case s.Leader.Load():
		detail = "holds " + m.options.Instance + ", and leads within 2 s, when no other program can lead any more"
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
			continue // only hits are left of it
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

// writeEndpoint writes the fields of an endpoint, with the namespace if several are watched.
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
	// Each pair is written only if both values are known, as in the metrics.
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

// key writes the unique name of a row, as a value or an element of an array.
func (d *jsonWriter) key(r *row) {
	if r.id.IsStatic() || r.multiEndpoint { // may need escapes
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

// isEmpty reports whether there is no worker and none was lost lately. The web page then shows the
// empty state.
func (m *Monitor) isEmpty() bool {
	lost := func(ep *endpointStats) bool { return ep.lostWorkers(m) > 0 }
	return len(m.rows) == 0 && !slices.ContainsFunc(m.endpoints, lost)
}

// maxListedEndpoints bounds the list of registered endpoints.
const maxListedEndpoints = 50

func (m *Monitor) writeEmptyState(d *jsonWriter) {
	f, t := m.options.Fleet, m.options.Fleet.Target()
	counts := f.WorkerCounts()
	d.field("looking")
	d.open('{')
	d.text("namespace", string(m.options.Namespaces))
	d.text("component", t.Component)
	d.text("endpoint", t.Name)
	d.text("why", strings.Join(m.missing, ", "))
	m.writeDisconnected(d)
	d.field("asks")
	d.strings(m.pollSubjects(counts))
	d.field("watches")
	d.strings(m.options.Watches)
	d.field("sees")
	d.open('[')
	for _, c := range counts[:min(len(counts), maxListedEndpoints)] {
		d.open('{')
		m.writeQualifiedEndpoint(d, c.Endpoint)
		d.int("instances", int64(c.Workers))
		d.close('}')
	}
	d.close(']')
	m.writeNearest(d, t, counts)
	if len(m.disconnected()) == 0 { // otherwise a mock worker would not be found either
		d.text("mock", m.options.Mock)
	}
	d.close('}')
}

// disconnected returns the systems that are not connected and through which workers would be
// found. NATS is among them even if no known worker uses it.
func (m *Monitor) disconnected() (all []systemStatus) {
	s := m.stats()
	if s.NATS.Used() && !s.NATS.Disabled() && !s.NATS.Up() {
		all = append(all, m.systemStatusOf("nats", &s.NATS))
	}
	for name, conn := range registries(s) {
		if conn.Used() && !conn.Up() {
			all = append(all, m.systemStatusOf(name, conn))
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
