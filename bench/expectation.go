package main

import (
	"fmt"
	"strconv"

	"dynamo-metrics/internal/stats"
)

// expectation is what the program must have counted, exact to the last event.
type expectation struct {
	events          int // hit-rate events
	attributed      int // hit-rate events whose worker was counted
	tracked         int // worker ids
	overLimit       int // workers that were rejected at the limit, or evicted when workers registered
	rejectedLoads   int // loads of workers that are not registered at the endpoint
	rejectedReplies int // poll replies of workers that are not registered at the endpoint
	remembered      int // endpoints without workers that the program remembers

	overlap map[uint64]uint64 // blocks by worker id, of the permanent workers
}

func newExpectation() expectation {
	return expectation{tracked: soakPermanent, overlap: make(map[uint64]uint64)}
}

// registerWorkers expects n workers to register. At the limit they evict others.
func (l *expectation) registerWorkers(n int) {
	l.overLimit += max(0, l.tracked+n-soakMaxWorkers)
	l.tracked = min(soakMaxWorkers, l.tracked+n)
}

// recordForged expects hits of n forged ids, some or all of which are over the limit.
func (l *expectation) recordForged(n int) {
	free := min(n, soakMaxWorkers-l.tracked)
	l.tracked += free
	l.overLimit += n - free
	l.events += n
	l.attributed += free
}

// recordHit expects a hit of a registered worker. After that worker has left, the metrics still
// show its counters of hits, and so its id.
func (l *expectation) recordHit(id, blocks uint64) {
	l.events++
	l.attributed++
	if id < workerID(soakPermanent) {
		l.overlap[id] += blocks
	}
}

// recordMadeUpLoads expects n loads, each of a different made-up endpoint. For each worker that
// publishes them, the program keeps one load until the worker registers there. It rejects the
// others.
func (l *expectation) recordMadeUpLoads(n int) {
	if l.rejectedLoads == 0 {
		n -= soakMadeUpBy
	}
	l.rejectedLoads += n
}

// recordMadeUpReplies expects n poll replies of made-up endpoints.
func (l *expectation) recordMadeUpReplies(n int) { l.rejectedReplies += n }

// removeWorkers expects n workers without hits to leave, each from its own endpoint. The program
// remembers these endpoints up to a limit.
func (l *expectation) removeWorkers(n int) {
	const most = 1024
	l.tracked -= n
	l.remembered += n
	l.overLimit += max(0, l.remembered-most)
	l.remembered = min(l.remembered, most)
}

// rejectedSeries returns the series that counts messages of workers that are not registered at
// the endpoint.
func rejectedSeries(k stats.Kind) string {
	return fmt.Sprintf("dynamo_metrics_rejected_messages_total{kind=%q,reason=%q}", k, stats.NotRegistered)
}

// workersSeries returns the series that counts the workers in a state.
func workersSeries(state string) string {
	return fmt.Sprintf(`llm_workers{component="backend",endpoint="load_metrics",state=%q}`, state)
}

// check returns an error unless the samples match the expectation, with this number of
// registered workers. Of all other workers, only counters of hits may be left.
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
		if got, ok := v.series[series]; !ok && want > 0 || got != float64(want) {
			return fmt.Errorf("%s is %.0f, want %d", series, got, want)
		}
	}
	if v.attributed != float64(l.attributed) {
		return fmt.Errorf("%.0f hit-rate events are attributed to a worker, want %d", v.attributed, l.attributed)
	}
	if len(v.live) != registered {
		return fmt.Errorf("%d ids have series other than hits, want %d", len(v.live), registered)
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
