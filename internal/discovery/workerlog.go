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
	lookEvery = time.Second     // at who is there
	sayEvery  = 5 * time.Second // who has come or gone, at most

	// lookRest is how many times as long as it took a look is followed by none: of a very large
	// fleet it costs two per cent of a CPU at most.
	lookRest = 50

	// promptPoll is the longest poll interval that lets an answer to the last poll show that
	// a worker was alive just before its registration went: a lease outlives a dead one by 10 s.
	promptPoll = 4 * time.Second

	mostComings = 4 // endpoints that a line on those who have come or gone names
	mostIDs     = 8 // workers that it names of each, by what became of them
)

// Comings says in the log which workers have come or gone: in one line for all of them, and not
// more often than each few seconds. Who has come and gone in between is not mentioned.
type Comings struct {
	Fleet      *fleet.Fleet
	Namespaces wire.Namespaces
	Poll       time.Duration // how often workers are asked
	Log        *slog.Logger

	looks uint64
	all   []fleet.Presence // that were there at the last look
	known map[fleet.WorkerID]*whereabouts
	began bool // the log has said who was there at the start, if anyone was
}

// whereabouts are what is known of a worker that is there, or was when the log last spoke of it.
type whereabouts struct {
	at   fleet.Endpoint
	end  ending // if it were gone now
	seen uint64 // the last look that found it
	said bool   // the log has counted it
}

// ending is how a worker has gone.
type ending int

const (
	gone ending = iota // it is not known how
	left               // it had answered up to the end: it went in order
	lost               // it had not answered any more before: it died, or hangs
	endings
)

// Run says it until ctx ends, from when it is known who is registered.
func (c *Comings) Run(ctx context.Context) {
	select {
	case <-c.Fleet.Synced():
	case <-ctx.Done():
		return
	}
	c.look()
	c.say()
	said := time.Now()
	tick := time.NewTicker(lookEvery)
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
		c.look()
		rested = now.Add(lookRest * time.Since(now))
		if now.Sub(said) >= sayEvery && c.say() {
			said = now
		}
	}
}

// look notes who is there.
func (c *Comings) look() {
	if c.known == nil {
		c.known = make(map[fleet.WorkerID]*whereabouts)
	}
	c.looks++
	c.all = c.Fleet.AppendPresent(c.all[:0])
	hears := c.Poll <= promptPoll && c.Fleet.Stats.NATS.Up()
	for i := range c.all {
		p := &c.all[i]
		w := c.known[p.ID]
		if w == nil {
			if !p.Expected {
				continue
			}
			w = &whereabouts{at: p.Endpoint}
			c.known[p.ID] = w
		}
		if w.seen, w.end = c.looks, endingOf(p, hears); p.Expected {
			w.at = p.Endpoint
		}
	}
	for id, w := range c.known {
		if w.seen != c.looks && !w.said {
			delete(c.known, id)
		}
	}
}

// endingOf is how a worker has gone that was there so when it was last looked at. It is told
// from its answers to polls: the registry says neither who has deleted a key nor why.
func endingOf(p *fleet.Presence, hears bool) ending {
	switch {
	case !p.Answered.OK:
		return gone
	case !p.Answered.V:
		return lost
	case hears:
		return left
	}
	return gone
}

// change is what has become of an endpoint's workers since the log last spoke of them.
type change struct {
	come []fleet.WorkerID
	went [endings][]fleet.WorkerID
	now  int
}

func (c *change) some() bool {
	return len(c.come) > 0 || slices.ContainsFunc(c.went[:], func(ids []fleet.WorkerID) bool { return len(ids) > 0 })
}

// say has the log speak of all that has changed, if something has.
func (c *Comings) say() bool {
	changes := make(map[fleet.Endpoint]*change)
	for id, w := range c.known {
		of := changes[w.at]
		if of == nil {
			of = new(change)
			changes[w.at] = of
		}
		here := w.seen == c.looks
		switch {
		case here && !w.said:
			of.come, w.said = append(of.come, id), true
		case !here:
			of.went[w.end] = append(of.went[w.end], id)
			delete(c.known, id)
		}
		if here {
			of.now++
		}
	}
	maps.DeleteFunc(changes, func(_ fleet.Endpoint, of *change) bool { return !of.some() })
	first := !c.began
	c.began = true
	if len(changes) == 0 {
		return false
	}
	c.Log.Info(c.sentence(changes, first))
	return true
}

// sentence tells the changes, endpoint by endpoint.
func (c *Comings) sentence(changes map[fleet.Endpoint]*change, first bool) string {
	var parts []string
	rest := new(change)
	for i, e := range slices.SortedFunc(maps.Keys(changes), compareEndpoints) {
		of := changes[e]
		if i < mostComings {
			parts = append(parts, of.text(c.Namespaces.OfEndpoint(e)+"/"+e.Component+"/"+e.Name, first))
			continue
		}
		rest.come = append(rest.come, of.come...)
		for how := range of.went {
			rest.went[how] = append(rest.went[how], of.went[how]...)
		}
		rest.now += of.now
	}
	if n := len(changes) - mostComings; n > 0 {
		parts = append(parts, rest.text(fmt.Sprintf("%d more endpoints", n), first))
	}
	return strings.Join(parts, ". ")
}

func compareEndpoints(a, b fleet.Endpoint) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Component, b.Component), cmp.Compare(a.Name, b.Name))
}

// text is the part of a line that is about one endpoint, or several.
func (c *change) text(where string, first bool) string {
	if first {
		return workers(c.come) + either(c.come, " is", " are") + " at " + where + named(c.come)
	}
	var parts []string
	tell := func(ids []fleet.WorkerID, what string) {
		if len(ids) > 0 {
			parts = append(parts, workers(ids)+" "+what+named(ids))
		}
	}
	tell(c.come, "joined "+where)
	tell(c.went[left], "left "+where)
	tell(c.went[lost], "of "+where+either(c.went[lost], " was", " were")+" lost")
	tell(c.went[gone], "of "+where+either(c.went[gone], " is", " are")+" gone")
	return fmt.Sprintf("%s; %d now", strings.Join(parts, "; "), c.now)
}

func workers(ids []fleet.WorkerID) string {
	return strconv.Itoa(len(ids)) + either(ids, " worker", " workers")
}

func either(ids []fleet.WorkerID, one, more string) string {
	if len(ids) == 1 {
		return one
	}
	return more
}

// named are the ids, as Dynamo's own logs have them, as far as a line has room.
func named(ids []fleet.WorkerID) string {
	slices.SortFunc(ids, func(a, b fleet.WorkerID) int {
		return cmp.Or(cmp.Compare(a.Lease, b.Lease), cmp.Compare(a.Static, b.Static))
	})
	var names []string
	for _, id := range ids[:min(len(ids), mostIDs)] {
		names = append(names, cmp.Or(id.Hex(), id.Static))
	}
	text := ": " + strings.Join(names, ", ")
	if n := len(ids) - mostIDs; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}
