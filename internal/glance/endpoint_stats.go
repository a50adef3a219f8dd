package glance

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// place is what is remembered of one endpoint from cut to cut, and its part of the last one.
type place struct {
	fleet.Endpoint
	counted    bool
	seen       uint64
	tracks     map[rowID]*track
	rows       map[fleet.WorkerID]int // how many of them a worker has
	start, end int                    // its rows in the cut
	sums       sums

	window window
	normal normal
	memory [endpointRuleCount]memory

	mean, std floats // of KV use
	waited    floats
	there     floats // the most workers at a time
	most      int    // of them since the last sample
	lingering int    // in the cut: workers that were counted, whose registration is gone, but that are heard still
	gone      departures
}

// rowID tells the rows of an endpoint apart.
type rowID struct {
	id   fleet.WorkerID
	rank int64
}

const noRank = -1

// compare orders rows as sorted names would, but for the width of numbers.
func (r rowID) compare(o rowID) int {
	return cmp.Or(cmp.Compare(r.id.Lease, o.id.Lease), strings.Compare(r.id.Static, o.id.Static), cmp.Compare(r.rank, o.rank))
}

// track is what is remembered of a row from cut to cut.
type track struct {
	rowID
	seen   uint64
	state  fleet.State
	source fleet.Opt[fleet.Source] // of its last load
	since  moment                  // first seen
	turned moment                  // into its state
	loaded moment                  // when its last load was received; 0: never
	passed moment                  // when its last forward pass was; 0: never
	memory [workerRuleCount]memory

	elsewhere bool // the worker had a row at another endpoint before
	counted   bool // metrics have shown it
	kept      bool // its history is

	kv, slots, hit *ring[uint8]
	waiting        *ring[uint16]
}

// note takes what the cut says of the row.
func (r *row) note(state fleet.State, now moment, source fleet.Source) {
	t := r.track
	if t.state != state {
		t.state, t.turned = state, now
	}
	if r.load.known {
		t.loaded = max(1, now-span(r.load.age))
		t.source = fleet.Some(source)
	}
	if r.passAge.OK {
		t.passed = max(1, now-span(r.passAge.V))
	}
}

// age is how long ago its last load was received; absent if none ever was.
func (t *track) age(now moment) fleet.Opt[time.Duration] {
	if t.loaded == 0 {
		return fleet.Opt[time.Duration]{}
	}
	return fleet.Some((now - t.loaded).duration())
}

// appendKey writes what names the row: the worker's id, and its rank where it has
// several. Where it has another row elsewhere they name the endpoint, too.
func (r *row) appendKey(b []byte) []byte {
	b = append(b, r.label...)
	if r.elsewhere {
		b = append(append(b, '@'), r.of.String()...)
	}
	if r.rank != noRank {
		b = strconv.AppendInt(append(b, '/'), r.rank, 10)
	}
	return b
}

// name is the worker as Dynamo's own keys and logs have it, and its rank.
func (t *track) name() string {
	if t.rank == noRank {
		return hexOf(t.id)
	}
	return hexOf(t.id) + " rank " + strconv.FormatInt(t.rank, 10)
}

// hexOf is a worker's id in hexadecimal, or what a static worker has for it.
func hexOf(id fleet.WorkerID) string {
	if id.IsStatic() {
		return id.Static
	}
	return id.Hex()
}

// place is what is known of the endpoint, made if need be, ready for a new cut. It is the
// rest where there is no room.
func (g *Glance) place(e *fleet.EndpointState) *place {
	p := g.places[e.Endpoint]
	switch {
	case p == nil && len(g.places) >= mostPlaces:
		g.leftOut.endpoints++
		p = g.rest
	case p == nil:
		p = &place{Endpoint: e.Endpoint, tracks: make(map[rowID]*track), rows: make(map[fleet.WorkerID]int),
			mean: newFloats(), std: newFloats(), waited: newFloats(), there: newFloats()}
		p.window.last = g.bucket()
		g.places[e.Endpoint] = p
	}
	p.seen, p.counted = g.looks, e.Counted
	p.start, p.end, p.lingering = len(g.rows), len(g.rows), 0
	p.sums = sums{answering: e.Answering, silent: e.Silent, unregistered: e.Unregistered, malformed: e.Malformed, blocks: e.Blocks, use: e.Usage}
	if p != g.rest {
		p.turn(g)
		g.order = append(g.order, p)
	}
	return p
}

// turn moves on to the bucket that is being filled.
func (p *place) turn(g *Glance) {
	if at := g.bucket(); at != p.window.last {
		p.learn()
		p.window.turn(at)
	}
}

// learn takes the bucket that is full for normal, unless hit rates seem to have collapsed.
func (p *place) learn() {
	if p.memory[hitsCollapsed].since == 0 {
		p.normal.learn(p.window.sum(1))
	}
}

// track is what is known of the row, made if need be; nil if there is no room.
func (g *Glance) track(p *place, id fleet.WorkerID, rank int64) *track {
	of := rowID{id, rank}
	t := p.tracks[of]
	if t == nil {
		if g.tracks >= mostRows {
			return nil
		}
		t = &track{rowID: of, since: g.now, turned: g.now}
		if p.rows[id] == 0 {
			t.elsewhere = g.presence[id] > 0
			g.presence[id]++
		} else {
			t.elsewhere = g.presence[id] > 1
		}
		p.tracks[of] = t
		p.rows[id]++
		g.tracks++
	}
	t.seen = g.looks
	return t
}

// untrack forgets a row.
func (g *Glance) untrack(p *place, t *track) {
	delete(p.tracks, t.rowID)
	g.tracks--
	if p.rows[t.id]--; p.rows[t.id] == 0 {
		delete(p.rows, t.id)
		if g.presence[t.id]--; g.presence[t.id] == 0 {
			delete(g.presence, t.id)
		}
	}
	if t.kept {
		g.ringing--
		g.ringBytes -= t.kv.bytes() + t.slots.bytes() + t.waiting.bytes() + t.hit.bytes()
	}
}

// sweep forgets what is not in the cut.
func (g *Glance) sweep() {
	for key, p := range g.places {
		if p.seen != g.looks {
			p.start, p.end = 0, 0
		}
		if len(p.tracks) != p.end-p.start {
			g.sweepTracks(p)
		}
		g.forgetGone(p)
		if p.seen != g.looks {
			g.departed -= len(p.gone)
			delete(g.places, key)
		}
	}
	if len(g.hits) == g.booked {
		return
	}
	for id, h := range g.hits {
		if h.seen != g.looks {
			delete(g.hits, id)
		}
	}
}

func (g *Glance) sweepTracks(p *place) {
	var left []*track
	for _, t := range p.tracks {
		if t.seen == g.looks {
			continue
		}
		g.untrack(p, t)
		left = append(left, t)
	}
	for _, t := range left {
		if t.counted && p.rows[t.id] == 0 { // else it has got ranks, or lost them
			g.leave(p, t)
		}
	}
}
