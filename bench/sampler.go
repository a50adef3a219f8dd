package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/backoff"
)

// sampler scrapes the program every second. It checks what must hold at any time, and stores the
// sizes of the program.
type sampler struct {
	m       *instance
	samples []sample
}

// sample is the size of the program at one time.
type sample struct {
	resident, heap, goroutines, descriptors float64
	ids, lines, bytes                       float64
}

// run scrapes until ctx ends or an invariant does not hold.
func (w *sampler) run(ctx context.Context) error {
	for before := (*summary)(nil); backoff.Wait(ctx, time.Second); {
		p, err := w.m.scrape(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("scrape %d: %w", len(w.samples), err)
		}
		now := summarize(p)
		if err := checkInvariants(before, &now); err != nil {
			return fmt.Errorf("scrape %d: %w", len(w.samples), err)
		}
		w.samples = append(w.samples, sample{
			resident: now.series["process_resident_memory_bytes"], heap: now.series["go_memstats_heap_alloc_bytes"],
			goroutines: now.series["go_goroutines"], descriptors: now.series["process_open_fds"],
			ids: float64(len(now.ids)), lines: float64(now.lines), bytes: float64(now.bytes),
		})
		before = &now
	}
	return nil
}

// checkInvariants returns an error if a scrape, or its difference from the one before,
// breaks an invariant.
func checkInvariants(before, now *summary) error {
	switch {
	case len(now.ids) > soakMaxWorkers:
		return fmt.Errorf("%d ids are shown, at a limit of %d", len(now.ids), soakMaxWorkers)
	case now.lines > soakMaxSeries:
		return fmt.Errorf("there are %d series, more than the possible %d", now.lines, soakMaxSeries)
	case now.series[droppedSeries] != 0:
		return fmt.Errorf("%.0f messages were dropped", now.series[droppedSeries])
	case len(now.isl) != len(now.overlap):
		return errors.New("an id has isl without overlap, or overlap without isl")
	}
	for id, isl := range now.isl {
		if isl != 2*now.overlap[id] {
			return fmt.Errorf("worker %s has isl %.0f with an overlap of %.0f, want twice that", id, isl, now.overlap[id])
		}
	}
	for i := range soakPermanent {
		id := strconv.FormatUint(workerID(i), 10)
		// Its gauges are absent after two missed polls, which happens on a machine that
		// stalls.
		if active, shown := now.active[id]; shown && active != float64(i%1000) {
			return fmt.Errorf("worker %s has %.0f blocks in use, want %d", id, active, i%1000)
		}
		if before != nil && now.overlap[id] < before.overlap[id] {
			return fmt.Errorf("overlap of worker %s decreases from %.0f to %.0f", id, before.overlap[id], now.overlap[id])
		}
	}
	if before == nil {
		return nil
	}
	for series, previous := range before.series {
		name, _, _ := strings.Cut(series, "{")
		// The program may forget a made-up endpoint in favour of others.
		ours := strings.HasPrefix(name, "dynamo_metrics_") || name == "llm_kv_hit_rate_events_total" && !strings.Contains(series, `"made-`)
		if value, ok := now.series[series]; ours && strings.HasSuffix(name, "_total") && (!ok || value < previous) {
			return fmt.Errorf("%s decreases from %.0f to %.0f", series, previous, value)
		}
	}
	return nil
}

// sortedThird returns one figure of the samples of one third of the soak, sorted.
func (w *sampler) sortedThird(n int, figure func(sample) float64) []float64 {
	var all []float64
	for _, s := range w.samples[n*len(w.samples)/3 : (n+1)*len(w.samples)/3] {
		all = append(all, figure(s))
	}
	slices.Sort(all)
	return all
}
