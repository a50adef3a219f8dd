package discovery

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

const (
	sampleInterval = time.Second     // at who is there
	logInterval    = 5 * time.Second // who has come or gone, at most

	// lookRest is how many times as long as it took a look is followed by none: of a very large
	// fleet it costs two per cent of a CPU at most.
	sampleRest = 50

	// promptPoll is the longest poll interval that lets an answer to the last poll show that
	// a worker was alive just before its registration went: a lease outlives a dead one by 10 s.
	maxLivenessPoll = 4 * time.Second

	maxLoggedEndpoints = 4 // endpoints that a line on those who have come or gone names
	maxLoggedIDs       = 8 // workers that it names of each, by what became of them
)

// Comings says in the log which workers have come or gone: in one line for all of them, and not
// more often than each few seconds. Who has come and gone in between is not mentioned.
type WorkerLog struct {
	Fleet      *fleet.Fleet
	Namespaces wire.Namespaces
	Poll       time.Duration // how often workers are asked
	Log        *slog.Logger

	samples uint64
	present []fleet.Presence // that were there at the last look
	known   map[fleet.WorkerID]*workerRecord
	started bool // the log has said who was there at the start, if anyone was
}

// whereabouts are what is known of a worker that is there, or was when the log last spoke of it.
type workerRecord struct {
	endpoint   fleet.Endpoint
	departure  departure // if it were gone now
	lastSample uint64    // the last look that found it
	logged     bool      // the log has counted it
}

// ending is how a worker has gone.
type departure int

const (
	departedUnknown departure = iota // it is not known how
	departedInOrder                  // it had answered up to the end: it went in order
	departedLost                     // it had not answered any more before: it died, or hangs
	departureCount
)

// Run says it until ctx ends, from when it is known who is registered.
func (c *WorkerLog) Run(ctx context.Context) {
	select {
	case <-c.Fleet.Synced():
	case <-ctx.Done():
		return
	}
	c.sample()
	c.report()
	said := time.Now()
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for rested := said; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Before(rested) {
			continue
		}
		c.sample()
		rested = now.Add(sampleRest * time.Since(now))
		if now.Sub(said) >= logInterval && c.report() {
			said = now
		}
	}
}

// look notes who is there.
func (c *WorkerLog) sample() {
	if c.known == nil {
		c.known = make(map[fleet.WorkerID]*workerRecord)
	}
	c.samples++
	c.present = c.Fleet.AppendPresent(c.present[:0])
	answersKnown := c.Poll <= maxLivenessPoll && c.Fleet.Stats.NATS.Up()
	for i := range c.present {
		p := &c.present[i]
		w := c.known[p.ID]
		if w == nil {
			if !p.Expected {
				continue
			}
			w = &workerRecord{endpoint: p.Endpoint}
			c.known[p.ID] = w
		}
		if w.lastSample, w.departure = c.samples, departureOf(p, answersKnown); p.Expected {
			w.endpoint = p.Endpoint
		}
	}
	for id, w := range c.known {
		if w.lastSample != c.samples && !w.logged {
			delete(c.known, id)
		}
	}
}

// endingOf is how a worker has gone that was there so when it was last looked at. It is told
// from its answers to polls: the registry says neither who has deleted a key nor why.
func departureOf(p *fleet.Presence, answersKnown bool) departure {
	switch {
	case !p.Answered.OK:
		return departedUnknown
	case !p.Answered.V:
		return departedLost
	case answersKnown:
		return departedInOrder
	}
	return departedUnknown
}

// change is what has become of an endpoint's workers since the log last spoke of them.
type endpointChange struct {
	joined   []fleet.WorkerID
	departed [departureCount][]fleet.WorkerID
	current  int
}

func (c *endpointChange) hasChanges() bool {
	return len(c.joined) > 0 || slices.ContainsFunc(c.departed[:], func(ids []fleet.WorkerID) bool { return len(ids) > 0 })
}

// say has the log speak of all that has changed, if something has.
func (c *WorkerLog) report() bool {
	changes := make(map[fleet.Endpoint]*endpointChange)
	for id, w := range c.known {
		change := changes[w.endpoint]
		if change == nil {
			change = new(endpointChange)
			changes[w.endpoint] = change
		}
		here := w.lastSample == c.samples
		switch {
		case here && !w.logged:
			change.joined, w.logged = append(change.joined, id), true
		case !here:
			change.departed[w.departure] = append(change.departed[w.departure], id)
			delete(c.known, id)
		}
		if here {
			change.current++
		}
	}
	maps.DeleteFunc(changes, func(_ fleet.Endpoint, change *endpointChange) bool { return !change.hasChanges() })
	first := !c.started
	c.started = true
	if len(changes) == 0 {
		return false
	}
	c.Log.Info(c.message(changes, first))
	return true
}

// sentence tells the changes, endpoint by endpoint.
func (c *WorkerLog) message(changes map[fleet.Endpoint]*endpointChange, first bool) string {
	var parts []string
	rest := new(endpointChange)
	for i, e := range slices.SortedFunc(maps.Keys(changes), compareEndpoints) {
		change := changes[e]
		if i < maxLoggedEndpoints {
			parts = append(parts, change.text(c.Namespaces.OfEndpoint(e)+"/"+e.Component+"/"+e.Name, first))
			continue
		}
		rest.joined = append(rest.joined, change.joined...)
		for how := range change.departed {
			rest.departed[how] = append(rest.departed[how], change.departed[how]...)
		}
		rest.current += change.current
	}
	if n := len(changes) - maxLoggedEndpoints; n > 0 {
		parts = append(parts, rest.text(fmt.Sprintf("%d more endpoints", n), first))
	}
	return strings.Join(parts, ". ")
}

func compareEndpoints(a, b fleet.Endpoint) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Component, b.Component), cmp.Compare(a.Name, b.Name))
}

// text is the part of a line that is about one endpoint, or several.
func (c *endpointChange) text(where string, first bool) string {
	if first {
		return countWorkers(c.joined) + plural(c.joined, " is", " are") + " at " + where + listIDs(c.joined)
	}
	var parts []string
	add := func(ids []fleet.WorkerID, what string) {
		if len(ids) > 0 {
			parts = append(parts, countWorkers(ids)+" "+what+listIDs(ids))
		}
	}
	add(c.joined, "joined "+where)
	add(c.departed[departedInOrder], "left "+where)
	add(c.departed[departedLost], "of "+where+plural(c.departed[departedLost], " was", " were")+" lost")
	add(c.departed[departedUnknown], "of "+where+plural(c.departed[departedUnknown], " is", " are")+" gone")
	return fmt.Sprintf("%s; %d now", strings.Join(parts, "; "), c.current)
}

func countWorkers(ids []fleet.WorkerID) string {
	return strconv.Itoa(len(ids)) + plural(ids, " worker", " workers")
}

func plural(ids []fleet.WorkerID, one, more string) string {
	if len(ids) == 1 {
		return one
	}
	return more
}

// named are the ids, as Dynamo's own logs have them, as far as a line has room.
func listIDs(ids []fleet.WorkerID) string {
	slices.SortFunc(ids, func(a, b fleet.WorkerID) int {
		return cmp.Or(cmp.Compare(a.Lease, b.Lease), cmp.Compare(a.Static, b.Static))
	})
	var names []string
	for _, id := range ids[:min(len(ids), maxLoggedIDs)] {
		names = append(names, cmp.Or(id.Hex(), id.Static))
	}
	text := ": " + strings.Join(names, ", ")
	if n := len(ids) - maxLoggedIDs; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}
