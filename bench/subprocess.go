package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
)

// The sides of measures that run in processes of their own, so that their CPU time is
// theirs alone.
const (
	sideBare    = "bare"    // subscribes to hit rates, and does nothing with them
	sidePoll    = "poll"    // polls as metrics does
	sideDiscard = "discard" // asks likewise, and throws the replies away

	sideChanging = "changing" // workers whose loads change
)

func sideNames() []string { return []string{sideBare, sidePoll, sideDiscard, sideChanging} }

// patientRounds is how many times as many rounds are run of two sides in turn while the
// ratio of their best is missed: others on the machine only ever slow a side down.
const patientRounds = 3

// side is what such a process is told.
type side struct {
	name, url, namespace string
	workers, polls       int
	address              string

	etcd, release, plane string
}

func (s side) run(ctx context.Context, stdout io.Writer) error {
	switch s.name {
	case sidePoll:
		return s.report(ctx, stdout, s.poll)
	case sideDiscard:
		return s.report(ctx, stdout, s.discard)
	case sideChanging:
		return s.changing(ctx)
	default:
		return s.bare(ctx)
	}
}

// cost is what a side has spent.
type cost struct {
	Replies int
	CPU     int64 // nanoseconds
	Allocs  uint64
}

func (c cost) cpu() float64    { return float64(c.CPU) / float64(c.Replies) }
func (c cost) allocs() float64 { return float64(c.Allocs) / float64(c.Replies) }

func (s side) report(ctx context.Context, stdout io.Writer, work func(context.Context, *meter) error) error {
	var m meter
	if err := work(ctx, &m); err != nil {
		return err
	}
	if m.spent.Replies == 0 {
		return fmt.Errorf("no replies to %d polls", s.polls)
	}
	return json.NewEncoder(stdout).Encode(m.spent)
}

// meter measures this process between two calls.
type meter struct{ from, spent cost }

func reading(replies int) cost {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return cost{Replies: replies, CPU: usage(), Allocs: memory.Mallocs}
}

func (m *meter) start(replies int) { m.from = reading(replies) }

func (m *meter) stop(replies int) {
	to := reading(replies)
	m.spent = cost{Replies: to.Replies - m.from.Replies, CPU: to.CPU - m.from.CPU, Allocs: to.Allocs - m.from.Allocs}
}
