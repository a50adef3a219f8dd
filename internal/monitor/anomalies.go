package monitor

import (
	"fmt"
	"math"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// anomaly is something unusual about one worker.
type anomaly struct{ text, check string }

// anomalies returns everything unusual about a row.
func (m *Monitor) anomalies(r *row) (all []anomaly) {
	say := func(check, format string, args ...any) {
		all = append(all, anomaly{fmt.Sprintf(format, args...), check})
	}
	agg := &r.endpoint.aggregate
	switch r.state {
	case fleet.StateSilent:
		if r.lastLoad == 0 {
			say("Is it idle, or has it just started? If neither, read its log.", "It is registered%s, but no load has been received from it yet.", m.registryPhrase())
		} else {
			say("Does the process hang? Read its log.", "It is registered%s, but its last load was received %s ago.", m.registryPhrase(), formatDuration(r.lastLoadAge(m.now).V))
		}
	case fleet.StateMalformed:
		say("Which release and engine is it? Its load is not counted anywhere.", "It answers polls, but its load cannot be decoded.")
	case fleet.StateUnregistered:
		if r.unregistered {
			say("Is it shutting down? If not, restart it.", "It reports, but its registration%s has been gone for %s: no router sees it.", m.registryPhrase(), formatDuration((m.now - r.stateSince).duration()))
		}
	}
	if v := r.load.kvUsage(); v.OK && agg.kvUsage.N > 2 && math.Abs(v.V-agg.kvUsage.Mean) > 2.5*agg.kvUsage.Std && math.Abs(v.V-agg.kvUsage.Mean) > 0.05 {
		above := v.V > agg.kvUsage.Mean
		say(ifElse(above, "Does one long shared prefix attract its requests?", "Does the router know it? Did it restart with an empty cache?"),
			"KV use %s is %.1f standard deviations %s its endpoint's mean of %s.", formatPercent(v.V), math.Abs(v.V-agg.kvUsage.Mean)/agg.kvUsage.Std, ifElse(above, "above", "below"), formatPercent(agg.kvUsage.Mean))
	}
	if v := r.load.waiting(); v.V > 0 && agg.kvUsage.N > 1 && agg.kvUsage.Mean < 0.75 {
		say("Compare the weights of cache overlap and of load in the router.", "%s here while its endpoint has %s of its blocks free.", requestsWaitText(v.V), formatPercent(1-agg.kvUsage.Mean))
	}
	if own, of := r.hitRate(), agg.hitsRecent.rate(); own.OK && of.OK && math.Abs(own.V-of.V) > 0.25 {
		say(ifElse(own.V > of.V, "It may have a hot prefix, and be chosen for its hits every time.", "Its cache may be cold, or its requests share no prefix."),
			"Its hit rate is %s, and its endpoint's is %s.", formatPercent(own.V), formatPercent(of.V))
	}
	if r.passAge.OK && r.passAge.V > 5*time.Second {
		say("Is the engine stuck, or do its events not arrive?", "Its engine has reported no forward pass for %s; even an idle engine reports every second.", formatDuration(r.passAge.V))
	}
	if r.ruleStates[ruleUnread].holding {
		failed := m.failedScrape(r)
		text, check := m.scrapeErrorText(failed.Why)
		say(check, "Its own metrics could not be read %s times in a row: %s.", formatCount(failed.Times), text)
	}
	if l := &r.load; l.known && r.state == fleet.StateAnswering {
		switch {
		case !l.kvTotal.OK && !l.cacheUsage.OK:
			say("Does it register a model card? From 0.9 on the card has the number of blocks.", "KV use is not shown: the total number of blocks is not known.")
		case !l.slotsActive.OK:
			say("There is nothing to do. From 1.1 on forward passes have them, if the engine reports those.", "Slots and waiting are not shown: its release does not publish them, or its engine does not report them.")
		}
	}
	return all
}

// writeWorker writes the history and the anomalies of the row with this key. It reports false if
// there is no such row.
func (m *Monitor) writeWorker(d *jsonWriter, key string) bool {
	var b []byte
	for i := range m.rows {
		r := &m.rows[i]
		if !strings.HasPrefix(key, r.label) {
			continue
		}
		if b = r.appendKey(b[:0]); string(b) == key {
			m.writeWorkerHistory(d, r)
			return true
		}
	}
	return false
}

func (m *Monitor) writeWorkerHistory(d *jsonWriter, r *row) {
	d.open('{')
	d.field("key")
	d.key(r)
	d.int("step", int64(historyStep.Seconds()))
	d.int("end", m.unixMilli(m.historyClock.lastDue))
	if !r.hasSamples && m.rowsWithHistory >= m.historyCapacity() {
		d.text("note", fmt.Sprintf("This worker has no history: there is room for the histories of only %s.", plural(m.historyCapacity(), "worker")))
	}
	m.writeSamples(d, "kv", func(slot int) float64 { return r.kvUsages.at(slot, fractionSteps) })
	m.writeSamples(d, "slots", func(slot int) float64 { return r.slotUsages.at(slot, fractionSteps) })
	m.writeSamples(d, "waiting", func(slot int) float64 { return r.waitingCounts.at(slot, 1) })
	m.writeSamples(d, "hitRate", func(slot int) float64 { return r.hitRates.at(slot, fractionSteps) })
	d.field("peersKv")
	d.open('{')
	m.writeSamples(d, "mean", func(slot int) float64 { return float64(r.endpoint.usageMean[slot]) })
	m.writeSamples(d, "std", func(slot int) float64 { return float64(r.endpoint.usageStd[slot]) })
	d.close('}')
	d.field("odd")
	d.open('[')
	for _, o := range m.anomalies(r) {
		d.open('{')
		d.text("text", o.text)
		d.text("check", o.check)
		d.close('}')
	}
	d.close(']')
	d.close('}')
}

// writeSamples writes the values of a history, the oldest first.
func (m *Monitor) writeSamples(d *jsonWriter, name string, at func(slot int) float64) {
	d.field(name)
	d.open('[')
	for ago := m.historyClock.kept() - 1; ago >= 0; ago-- {
		d.float(at(m.historyClock.slot(ago)), 1e4)
	}
	d.close(']')
}
