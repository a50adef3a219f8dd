package main

import (
	"fmt"
	"strconv"

	"dynamo-metrics/internal/stats"
)

// ledger is what the program must have counted, to the last event.
type expectation struct {
	events          int // hit-rate events
	attributed      int // those of them that somebody was there for
	tracked         int // ids
	overLimit       int // turned away, or pushed out by workers that register
	rejectedLoads   int // of no use: their workers are not registered at the endpoint
	rejectedReplies int // the same
	remembered      int // endpoints that are remembered

	overlap map[uint64]uint64 // blocks, of the workers that stay
}

func newExpectation() expectation {
	return expectation{tracked: soakPermanent, overlap: make(map[uint64]uint64)}
}

// register has n workers come, for whom others are pushed out if need be.
func (l *expectation) registerWorkers(n int) {
	l.overLimit += max(0, l.tracked+n-soakMaxWorkers)
	l.tracked = min(soakMaxWorkers, l.tracked+n)
}

// forge has n ids hit that nobody has: there is room for some, or none.
func (l *expectation) recordForged(n int) {
	room := min(n, soakMaxWorkers-l.tracked)
	l.tracked += room
	l.overLimit += n - room
	l.events += n
	l.attributed += room
}

// hit has a registered worker hit. One that goes leaves its counters, and the id.
func (l *expectation) recordHit(id, blocks uint64) {
	l.events++
	l.attributed++
	if id < workerID(soakPermanent) {
		l.overlap[id] += blocks
	}
}

// named has loads come of as many made-up endpoints. Each of the workers in whose
// name they come has one that waits for its registration there; the others are of no use.
func (l *expectation) recordMadeUpLoads(n int) {
	if l.rejectedLoads == 0 {
		n -= soakMadeUpBy
	}
	l.rejectedLoads += n
}

// answered has as many answers come of made-up endpoints.
func (l *expectation) recordMadeUpReplies(n int) { l.rejectedReplies += n }

// leave has n workers go that were not hit, each from another endpoint, which is remembered:
// so many of them are at most.
func (l *expectation) removeWorkers(n int) {
	const most = 1024
	l.tracked -= n
	l.remembered += n
	l.overLimit += max(0, l.remembered-most)
	l.remembered = min(l.remembered, most)
}

// notRegistered is the series of messages of workers at endpoints where they are not.
func rejectedSeries(k stats.Kind) string {
	return fmt.Sprintf("dynamo_metrics_rejected_messages_total{kind=%q,reason=%q}", k, stats.NotRegistered)
}

// stateOf is the series of how many workers are in a state.
func workersSeries(state string) string {
	return fmt.Sprintf(`llm_workers{component="backend",endpoint="load_metrics",state=%q}`, state)
}

// check complains unless the page is as the ledger has it, with so many workers
// registered, and nothing but hits is left of all others.
func (l *expectation) check(v summary, registered int) error {
	for series, want := range map[string]int{
		fmt.Sprintf("dynamo_metrics_messages_total{kind=%q}", stats.HitRate): l.events,
		"dynamo_metrics_workers_over_limit_total":                            l.overLimit,
		rejectedSeries(stats.LoadEvent):                                      l.rejectedLoads,
		rejectedSeries(stats.StatsReply):                                     l.rejectedReplies,
		workersSeries("answering"):                                           registered,
		workersSeries("silent"):                                              0,
		workersSeries("unregistered"):                                        0,
	} {
		if got, there := v.series[series]; !there && want > 0 || got != float64(want) {
			return fmt.Errorf("%s is %.0f, want %d", series, got, want)
		}
	}
	if v.attributed != float64(l.attributed) {
		return fmt.Errorf("%.0f hit-rate events are booked, want %d", v.attributed, l.attributed)
	}
	if len(v.live) != registered {
		return fmt.Errorf("more than hits is shown of %d ids, want %d", len(v.live), registered)
	}
	if n := len(v.ids); n != l.tracked {
		return fmt.Errorf("%d ids are shown, want %d", n, l.tracked)
	}
	for id, blocks := range l.overlap {
		label := strconv.FormatUint(id, 10)
		if v.overlap[label] != float64(blocks) {
			return fmt.Errorf("worker %d has %.0f blocks of overlap, want %d", id, v.overlap[label], blocks)
		}
	}
	return nil
}
