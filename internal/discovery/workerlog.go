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
	sampleInterval = time.Second     // between two samples of the fleet's workers
	logInterval    = 5 * time.Second // between two log lines, at least

	// sampleRest is how many times longer the pause after a sample is than the sample took, at
	// least: sampling a very large fleet costs at most two per cent of a CPU.
	sampleRest = 50

	// maxLivenessPoll is the longest poll interval at which a reply to the last poll proves that a
	// worker was alive just before its key was deleted: the lease of a dead worker expires after
	// 10 s.
	maxLivenessPoll = 4 * time.Second

	maxLoggedEndpoints = 4 // endpoints that one log line names
	maxLoggedIDs       = 8 // workers that the line names for each endpoint and kind of change
)

// WorkerLog logs which workers have joined or left. It writes one line for all of them, at most
// every few seconds. A worker that joins and leaves between two lines is not mentioned.
type WorkerLog struct {
	Fleet      *fleet.Fleet
	Namespaces wire.Namespaces
	Poll       time.Duration // the interval of stats polls
	Log        *slog.Logger

	samples uint64
	present []fleet.Presence // the workers in the last sample
	known   map[fleet.WorkerID]*workerRecord
	started bool // the line about the workers at the start was written, if there were any
}

// workerRecord is what is known about a worker that is in the last sample, or was present when the
// last line was written.
type workerRecord struct {
	endpoint   fleet.Endpoint
	departure  departure // how it left, if it is gone by the next sample
	lastSample uint64    // the number of the last sample that had it
	logged     bool      // a line has counted it as joined
}

// departure is how a worker has left.
type departure int

const (
	departedUnknown departure = iota // the reason is not known
	departedCleanly                  // it answered polls until its key was deleted: it was shut down cleanly
	departedLost                     // it had stopped answering polls before: it died, or hangs
	departureCount
)

// Run logs changes until ctx ends. It begins once the registry is known.
func (l *WorkerLog) Run(ctx context.Context) {
	select {
	case <-l.Fleet.Synced():
	case <-ctx.Done():
		return
	}
	l.sample()
	l.report()
	logged := time.Now()
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for nextSample := logged; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Before(nextSample) {
			continue
		}
		l.sample()
		nextSample = now.Add(sampleRest * time.Since(now))
		if now.Sub(logged) >= logInterval && l.report() {
			logged = now
		}
	}
}

// sample updates the records from the workers that the fleet has now.
func (l *WorkerLog) sample() {
	if l.known == nil {
		l.known = make(map[fleet.WorkerID]*workerRecord)
	}
	l.samples++
	l.present = l.Fleet.AppendPresent(l.present[:0])
	repliesRecent := l.Poll <= maxLivenessPoll && l.Fleet.Stats.NATS.Up()
	for i := range l.present {
		p := &l.present[i]
		w := l.known[p.ID]
		if w == nil {
			if !p.Expected {
				continue
			}
			w = &workerRecord{endpoint: p.Endpoint}
			l.known[p.ID] = w
		}
		if w.lastSample, w.departure = l.samples, departureOf(p, repliesRecent); p.Expected {
			w.endpoint = p.Endpoint
		}
	}
	for id, w := range l.known {
		if w.lastSample != l.samples && !w.logged {
			delete(l.known, id)
		}
	}
}

// departureOf returns how a worker has left, judged by its last sample. Its replies to polls
// decide, because the registry does not record which client deleted a key, or why. repliesRecent
// is whether polls are frequent enough for that, and NATS is connected.
func departureOf(p *fleet.Presence, repliesRecent bool) departure {
	switch {
	case !p.Answered.OK:
		return departedUnknown
	case !p.Answered.V:
		return departedLost
	case repliesRecent:
		return departedCleanly
	}
	return departedUnknown
}

// endpointChange is how the workers of an endpoint have changed since the last line.
type endpointChange struct {
	joined   []fleet.WorkerID
	departed [departureCount][]fleet.WorkerID
	current  int
}

func (c *endpointChange) hasChanges() bool {
	return len(c.joined) > 0 || slices.ContainsFunc(c.departed[:], func(ids []fleet.WorkerID) bool { return len(ids) > 0 })
}

// report logs all changes in one line, if there are any.
func (l *WorkerLog) report() bool {
	changes := make(map[fleet.Endpoint]*endpointChange)
	for id, w := range l.known {
		change := changes[w.endpoint]
		if change == nil {
			change = new(endpointChange)
			changes[w.endpoint] = change
		}
		present := w.lastSample == l.samples
		switch {
		case present && !w.logged:
			change.joined, w.logged = append(change.joined, id), true
		case !present:
			change.departed[w.departure] = append(change.departed[w.departure], id)
			delete(l.known, id)
		}
		if present {
			change.current++
		}
	}
	maps.DeleteFunc(changes, func(_ fleet.Endpoint, change *endpointChange) bool { return !change.hasChanges() })
	first := !l.started
	l.started = true
	if len(changes) == 0 {
		return false
	}
	l.Log.Info(l.message(changes, first))
	return true
}

// message describes the changes, endpoint by endpoint.
func (l *WorkerLog) message(changes map[fleet.Endpoint]*endpointChange, first bool) string {
	var parts []string
	rest := new(endpointChange)
	for i, e := range slices.SortedFunc(maps.Keys(changes), compareEndpoints) {
		change := changes[e]
		if i < maxLoggedEndpoints {
			parts = append(parts, change.text(l.Namespaces.OfEndpoint(e)+"/"+e.Component+"/"+e.Name, first))
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

// text returns the part of a line about one endpoint, or about the remaining ones together.
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
	add(c.departed[departedCleanly], "left "+where)
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

// listIDs lists the first ids, written as in Dynamo's own logs.
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
