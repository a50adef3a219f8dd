package glance

import (
	"fmt"
	"math"
	"time"

	"dynamo-metrics/internal/fleet"
)

// oddity is something unusual about one worker.
type oddity struct{ text, check string }

// odd is everything unusual about a row.
func (g *Glance) odd(r *row) (all []oddity) {
	say := func(check, format string, args ...any) {
		all = append(all, oddity{fmt.Sprintf(format, args...), check})
	}
	s := &r.of.sums
	switch r.state {
	case fleet.StateSilent:
		if r.loaded == 0 {
			say("Is it idle, or has it just started? Else read its log.", "It is registered%s, but no load of its has come yet.", g.inRegistry())
		} else {
			say("Does the process hang? Read its log.", "It is registered%s, but its last load came %s ago.", g.inRegistry(), lasting(r.age(g.now).V))
		}
	case fleet.StateMalformed:
		say("Which release, or engine, is it? Its load is counted nowhere.", "It answers, but its load cannot be decoded.")
	case fleet.StateUnregistered:
		if r.outside {
			say("Is it shutting down? Else restart it.", "It is heard, but its registration%s has been gone for %s: no router sees it.", g.inRegistry(), lasting(time.Duration(g.now-r.turned)*time.Millisecond))
		}
	}
	if v := use(r.load); v.OK && s.use.n > 2 && math.Abs(v.V-s.use.mean) > 2.5*s.use.std() && math.Abs(v.V-s.use.mean) > 0.05 {
		above := v.V > s.use.mean
		say(either(above, "Does one long shared prefix draw its requests here?", "Is it in the router's list? Did it restart, with an empty cache?"),
			"KV use %s is %.1f standard deviations %s its endpoint's mean of %s.", percent(v.V), math.Abs(v.V-s.use.mean)/s.use.std(), either(above, "above", "below"), percent(s.use.mean))
	}
	if v := waiting(r.load); v.V > 0 && s.use.n > 1 && s.use.mean < 0.75 {
		say("Compare the router's weight of cache overlap with that of load.", "%s here while its endpoint has %s of its blocks free.", requestsWait(v.V), percent(1-s.use.mean))
	}
	if own, of := r.hitRate(), s.last.rate(); own.OK && of.OK && math.Abs(own.V-of.V) > 0.25 {
		say(either(own.V > of.V, "A hot prefix: it hits often because it is always chosen.", "A cold cache, or requests that share no prefix."),
			"Hit rate %s against %s of its endpoint.", percent(own.V), percent(of.V))
	}
	if r.passAge.OK && r.passAge.V > 5*time.Second {
		say("Is the engine stuck, or do its events not arrive?", "Its engine has reported no forward pass for %s; even an idle one reports each second.", lasting(r.passAge.V))
	}
	if l := r.load; l != nil && r.state == fleet.StateAnswering {
		switch {
		case !l.KVTotal.OK && !l.CacheUsage.OK:
			say("Does it register a model card? From 0.9 on the card has them.", "KV use is not shown: nothing says how many blocks there are.")
		case !l.ActiveSlots.OK:
			say("Nothing to do; from 1.1 on forward passes say it, where the engine reports them.", "Slots and waiting are not shown: its release does not publish them, or its engine does not report them.")
		}
	}
	return all
}

// writeWorker is the history of one row, and what is odd about it. It reports false if
// there is no such row.
func (g *Glance) writeWorker(d *doc, key string) bool {
	for i := range g.rows {
		if r := &g.rows[i]; r.key == key {
			g.writeWorkerHistory(d, r)
			return true
		}
	}
	return false
}

func (g *Glance) writeWorkerHistory(d *doc, r *row) {
	d.open('{')
	d.text("key", r.key)
	d.int("step", int64(step.Seconds()))
	d.int("end", g.wall(g.clock.last))
	if room := min(g.o.Limit, mostRings); !r.kept && g.ringing >= room {
		d.text("note", fmt.Sprintf("No history is kept of this worker: there is room for that of %s.", thousands(room)))
	}
	g.ring(d, "kv", r.kv, fraction)
	g.ring(d, "slots", r.slots, fraction)
	g.ring(d, "waiting", r.waiting, 1)
	g.ring(d, "hitRate", r.hit, fraction)
	d.field("peersKv")
	d.open('{')
	g.ring(d, "mean", r.of.mean, fraction)
	g.ring(d, "std", r.of.std, fraction)
	d.close('}')
	d.field("odd")
	d.open('[')
	for _, o := range g.odd(r) {
		d.open('{')
		d.text("text", o.text)
		d.text("check", o.check)
		d.close('}')
	}
	d.close(']')
	d.close('}')
}

// ring writes the samples of a ring in units of so many parts of one.
func (g *Glance) ring(d *doc, name string, r *ring, parts float64) {
	d.field(name)
	d.open('[')
	for ago := g.clock.kept() - 1; ago >= 0; ago-- {
		v := math.NaN()
		if r != nil {
			if n := r[g.clock.slot(ago)]; n != missing {
				v = float64(n) / parts
			}
		}
		d.float(v, parts)
	}
	d.close(']')
}
