package glance

import (
	"slices"
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
	start, end int // its rows in the cut
	sums       sums

	window window
	normal normal
	memory [endpointRuleCount]memory

	mean, std *ring // of KV use
	waited    floats
	there     floats // workers
	gone      []gone
}

// gone is a worker that was registered and is not any more.
type gone struct {
	name string
	at   moment
}

const (
	mostGone   = 64               // that are remembered of an endpoint
	rememberIt = 10 * time.Minute // as long as workers count as lost
)

// rowID tells the rows of an endpoint apart.
type rowID struct {
	id   fleet.WorkerID
	rank int64
}

const noRank = -1

// track is what is remembered of a row from cut to cut.
type track struct {
	rowID
	key    string
	seen   uint64
	since  moment // first seen
	state  fleet.State
	turned moment                  // into its state
	loaded moment                  // when its last load was received; 0: never
	source fleet.Opt[fleet.Source] // of that
	memory [workerRuleCount]memory

	kept                    bool // its history is
	kv, slots, waiting, hit *ring
}

// note takes what the row's cut says of it.
func (t *track) note(r *row, now moment, source fleet.Source) {
	if t.state != r.worker.State {
		t.state, t.turned = r.worker.State, now
	}
	if r.load != nil {
		t.loaded = max(1, now-moment(r.loadAge.Milliseconds()))
		t.source = fleet.Some(source)
	}
}

// age is how long ago its last load was received; absent if none ever was.
func (t *track) age(now moment) fleet.Opt[time.Duration] {
	if t.loaded == 0 {
		return fleet.Opt[time.Duration]{}
	}
	return fleet.Some(time.Duration(now-t.loaded) * time.Millisecond)
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

// place is what is known of the endpoint, made if need be, ready for a new cut.
func (g *Glance) place(e *fleet.EndpointState) *place {
	p := g.places[e.Endpoint]
	if p == nil {
		p = &place{Endpoint: e.Endpoint, tracks: make(map[rowID]*track)}
		p.window.last = g.bucket()
		for i := range samples {
			p.waited.put(i, number{})
			p.there.put(i, number{})
		}
		g.places[e.Endpoint] = p
	}
	p.seen, p.counted = g.looks, e.Counted
	p.start, p.end = len(g.rows), len(g.rows)
	p.sums = sums{answering: e.Answering, silent: e.Silent, unregistered: e.Unregistered, malformed: e.Malformed}
	if at := g.bucket(); at != p.window.last {
		p.learn()
		p.window.turn(at)
	}
	g.order = append(g.order, p)
	return p
}

// learn takes the bucket that is full for normal, unless hit rates seem to have collapsed.
func (p *place) learn() {
	if p.memory[hitsCollapsed].since == 0 {
		p.normal.learn(p.window.sum(1))
	}
}

// track is what is known of the row, made if need be. The key of a row is the worker's
// id, and its rank where it has several. Of a worker that is at several endpoints the
// rows at all but one name the endpoint, too.
func (g *Glance) track(p *place, id fleet.WorkerID, rank int64) *track {
	of := rowID{id, rank}
	t := p.tracks[of]
	if t == nil {
		t = &track{rowID: of, since: g.now, turned: g.now, key: id.String()}
		seat, known := g.seats[id]
		if !known {
			seat.at = p
		}
		if seat.at == p {
			seat.rows++
			g.seats[id] = seat
		} else {
			t.key += "@" + p.String()
		}
		if rank != noRank {
			t.key += "/" + strconv.FormatInt(rank, 10)
		}
		p.tracks[of] = t
	}
	t.seen = g.looks
	return t
}

// seat is the endpoint at which a worker's rows have the short key, and how many.
type seat struct {
	at   *place
	rows int
}

// sweep forgets what is not in the cut.
func (g *Glance) sweep() {
	for key, p := range g.places {
		if p.seen != g.looks {
			p.start, p.end = 0, 0
			delete(g.places, key)
			g.drop(p.mean, p.std)
		}
		if len(p.tracks) != p.end-p.start {
			g.sweepTracks(p)
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
	for of, t := range p.tracks {
		if t.seen == g.looks {
			continue
		}
		delete(p.tracks, of)
		left = append(left, t)
		if t.kept {
			g.ringing--
		}
		g.drop(t.kv, t.slots, t.waiting, t.hit)
		if seat := g.seats[t.id]; seat.at == p {
			seat.rows--
			g.seats[t.id] = seat
			if seat.rows == 0 {
				delete(g.seats, t.id)
			}
		}
	}
	slices.SortFunc(left, func(a, b *track) int { return strings.Compare(a.key, b.key) })
	for _, t := range left {
		// One that has got ranks, or lost them, is still there.
		if g.seats[t.id].at != p {
			p.gone = append(p.gone, gone{t.name(), g.now})
		}
	}
	p.gone = slices.Clone(p.gone[max(0, len(p.gone)-mostGone):])
}
