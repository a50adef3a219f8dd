package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
)

// The modes of subprocesses. The two sides of a comparison run in separate processes, so that
// the CPU time of each can be measured.
const (
	modeBare    = "bare"    // subscribes to hit rates, and discards them
	modePoll    = "poll"    // polls as metrics does
	modeDiscard = "discard" // polls as often, and discards the replies

	modeChanging = "changing" // runs workers whose loads change
)

func modes() []string { return []string{modeBare, modePoll, modeDiscard, modeChanging} }

// extraRounds times the usual number of rounds is how many two sides run in turn while the ratio
// of their best rounds misses its target. Other processes on the machine can only slow a side
// down.
const extraRounds = 3

// subprocess holds the settings of a subprocess.
type subprocess struct {
	mode, url, namespace string
	workers, polls       int
	address              string

	etcd, release, plane string
}

func (s subprocess) run(ctx context.Context, stdout io.Writer) error {
	switch s.mode {
	case modePoll:
		return s.reportCost(ctx, stdout, s.runPoller)
	case modeDiscard:
		return s.reportCost(ctx, stdout, s.runDiscarder)
	case modeChanging:
		return s.runChangingWorkers(ctx)
	default:
		return s.runBareSubscriber(ctx)
	}
}

// cost is what a subprocess has used.
type cost struct {
	Replies int
	CPU     int64 // nanoseconds
	Allocs  uint64
}

func (c cost) cpu() float64    { return float64(c.CPU) / float64(c.Replies) }
func (c cost) allocs() float64 { return float64(c.Allocs) / float64(c.Replies) }

func (s subprocess) reportCost(ctx context.Context, stdout io.Writer, work func(context.Context, *meter) error) error {
	var m meter
	if err := work(ctx, &m); err != nil {
		return err
	}
	if m.spent.Replies == 0 {
		return fmt.Errorf("no replies to %d polls", s.polls)
	}
	return json.NewEncoder(stdout).Encode(m.spent)
}

// meter measures the cost of this process between start and stop.
type meter struct{ from, spent cost }

func currentCost(replies int) cost {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return cost{Replies: replies, CPU: cpuTime(), Allocs: memory.Mallocs}
}

func (m *meter) start(replies int) { m.from = currentCost(replies) }

func (m *meter) stop(replies int) {
	to := currentCost(replies)
	m.spent = cost{Replies: to.Replies - m.from.Replies, CPU: to.CPU - m.from.CPU, Allocs: to.Allocs - m.from.Allocs}
}
