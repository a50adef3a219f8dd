package glance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// staleAfter is how old the newest load of workers that are polled may be: three polls
// and a second for the answers. Loads that are published are valid however old they
// are, while what they come by is connected.
func (g *Glance) staleAfter() time.Duration { return max(5*time.Second, 3*g.o.Poll+time.Second) }

func (g *Glance) serveSignals(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	e := fleet.Endpoint{Component: query.Get("component"), Name: query.Get("endpoint")}
	if e.Component == "" || e.Name == "" {
		refuse(w, http.StatusBadRequest, "component and endpoint are needed: those of the workers to scale, as in /api/v1/fleet")
		return
	}
	if name := query.Get("dynamo_namespace"); !g.inNamespace(name) {
		refuse(w, http.StatusNotFound, fmt.Sprintf("the namespace %q is not watched: %q is", name, g.o.Namespace))
		return
	}
	if t := g.o.Fleet.Target(); !t.Covers(e) {
		refuse(w, http.StatusNotFound, fmt.Sprintf("%s is not watched: %s is, by --component and --endpoint", e, strings.TrimSuffix(fleet.Endpoint(t).String(), "/")))
		return
	}
	d, stale := g.signals(e)
	if stale != "" {
		refuse(w, http.StatusServiceUnavailable, stale)
		return
	}
	send(w, r, d.b, func() []byte { return deflated(d.b) })
}

// signals are what an autoscaler needs of an endpoint, or why it must not be told.
func (g *Glance) signals(e fleet.Endpoint) (d doc, stale string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refresh()
	p := g.places[e]
	if stale = g.stale(p); stale != "" {
		return d, stale
	}
	var none sums
	s, known := &none, p != nil
	if known {
		s = &p.sums
	}
	d.open('{')
	d.text("namespace", g.o.Namespace)
	writeEndpoint(&d, e)
	d.bool("seen", known)
	d.int("now", g.at.UnixMilli())
	d.int("workers", int64(s.shown))
	d.int("workers_answering", int64(s.answering))
	d.int("workers_silent", int64(s.silent))
	d.int("workers_malformed", int64(s.malformed))
	d.fraction("kv_usage_mean", s.use.of(s.use.mean))
	d.fraction("kv_usage_max", s.use.of(s.use.max))
	// Of nobody nothing waits; of somebody who does not say, nobody knows.
	empty := s.shown == 0
	d.number("requests_running", number{V: s.running.V, OK: s.running.OK || empty}, 1)
	d.number("requests_waiting", number{V: s.waiting.V, OK: s.waiting.OK || empty}, 1)
	d.number("queued_prefill_tokens", number{V: s.queued.V, OK: s.queued.OK || empty}, 1)
	d.fraction("hit_rate", s.last.rate())
	if age := g.newestLoad(p); age.OK {
		d.number("age_seconds", fleet.Some(age.V.Seconds()), 100)
	}
	d.close('}')
	return d, ""
}

// stale is why nothing can be said of the endpoint; empty if it can.
func (g *Glance) stale(p *place) string {
	if !g.ready() {
		return "stale: " + strings.Join(g.missing, ", ")
	}
	if p == nil || p.sums.shown == 0 {
		return ""
	}
	age := g.newestLoad(p)
	if !age.OK {
		return fmt.Sprintf("stale: none of %s has reported a load", many(p.sums.shown, "worker"))
	}
	if bound := g.staleAfter(); age.V > bound && !g.publishes(p) {
		return fmt.Sprintf("stale: the newest load is %s old, and is asked for every %s", lasting(age.V), g.o.Poll)
	}
	return ""
}

// newestLoad is how old the newest load is of those that count.
func (g *Glance) newestLoad(p *place) (age fleet.Opt[time.Duration]) {
	if p == nil {
		return age
	}
	for i := p.start; i < p.end; i++ {
		if r := &g.rows[i]; r.load.known && !r.outside && (!age.OK || r.load.age < age.V) {
			age = fleet.Some(r.load.age)
		}
	}
	return age
}

// published are the sources of loads that come as events, when something has changed.
var published = [...]fleet.Source{fleet.FromLoadEvent, fleet.FromActiveLoad, fleet.FromPass}

// publishes reports whether a load of the endpoint came as an event.
func (g *Glance) publishes(p *place) bool {
	for i := p.start; i < p.end; i++ {
		if r := &g.rows[i]; r.load.known && !r.outside && slices.Contains(published[:], r.source.V) {
			return true
		}
	}
	return false
}
