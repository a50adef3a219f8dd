package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/connect"
)

// witness looks at the page every second. What must hold at any moment it checks; the
// rest it keeps.
type witness struct {
	m       *instance
	samples []sample
}

// sample is how large the program was at a moment.
type sample struct {
	resident, goroutines, descriptors float64
	ids, lines, bytes                 float64
}

// look looks until ctx ends, or something is wrong.
func (w *witness) look(ctx context.Context) error {
	for before := (*view)(nil); connect.Wait(ctx, time.Second); {
		p, err := w.m.page(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", len(w.samples), err)
		}
		now := look(p)
		if err := holds(before, &now); err != nil {
			return fmt.Errorf("page %d: %w", len(w.samples), err)
		}
		w.samples = append(w.samples, sample{
			resident: now.series["process_resident_memory_bytes"], goroutines: now.series["go_goroutines"], descriptors: now.series["process_open_fds"],
			ids: float64(len(now.ids)), lines: float64(now.lines), bytes: float64(now.bytes),
		})
		before = &now
	}
	return nil
}

// holds complains about what must not be on any page, seen after another.
func holds(before, now *view) error {
	switch {
	case len(now.ids) > soakLimit:
		return fmt.Errorf("%d ids are shown, at a limit of %d", len(now.ids), soakLimit)
	case now.series[droppedSeries] != 0:
		return fmt.Errorf("%.0f messages were dropped", now.series[droppedSeries])
	case len(now.isl) != len(now.overlap):
		return errors.New("an id has isl without overlap, or overlap without isl")
	}
	for id, isl := range now.isl {
		if isl != 2*now.overlap[id] {
			return fmt.Errorf("worker %s has isl %.0f beside an overlap of %.0f, want twice that", id, isl, now.overlap[id])
		}
	}
	for i := range soakStaying {
		id := strconv.FormatUint(workerID(i), 10)
		// Its gauges are away while it has missed two polls, as on a machine that stalls.
		if active, shown := now.active[id]; shown && active != float64(i%1000) {
			return fmt.Errorf("worker %s has %.0f blocks in use, want %d", id, active, i%1000)
		}
		if before != nil && now.overlap[id] < before.overlap[id] {
			return fmt.Errorf("overlap of worker %s goes back from %.0f to %.0f", id, before.overlap[id], now.overlap[id])
		}
	}
	if before == nil {
		return nil
	}
	for series, was := range before.series {
		name, _, _ := strings.Cut(series, "{")
		ours := strings.HasPrefix(name, "dynamo_metrics_") || name == "llm_kv_hit_rate_events_total"
		if is, there := now.series[series]; ours && strings.HasSuffix(name, "_total") && (!there || is < was) {
			return fmt.Errorf("%s goes back from %.0f to %.0f", series, was, is)
		}
	}
	return nil
}

// third is one of the three parts of the soak, by a figure of its samples, sorted.
func (w *witness) third(n int, figure func(sample) float64) []float64 {
	var all []float64
	for _, s := range w.samples[n*len(w.samples)/3 : (n+1)*len(w.samples)/3] {
		all = append(all, figure(s))
	}
	slices.Sort(all)
	return all
}

// figures says what the soak has shown. What it has counted is right, or it had ended
// before.
func (k *soaking) figures(w *witness) error {
	if len(w.samples) < 6 {
		return fmt.Errorf("only %d pages were looked at", len(w.samples))
	}
	l := &k.ledger
	name := fmt.Sprintf("soak of %.0f s, --max-workers %d: ", time.Since(k.begin).Seconds(), soakLimit)
	stated := func(measure, ours, must string) {
		k.table.add(row{measure: name + measure, ours: ours, must: must, met: true, gate: true})
	}
	stated("registrations that came and went", count(k.rounds*soakComing), "≥ "+count(leastComing))
	stated("ids that nobody has, each hit once", count(k.rounds*soakForged), "≥ "+count(leastForged))
	stated("hit-rate events published − counted; dropped", fmt.Sprintf("0 of %s; 0", count(l.events)), "0; 0")
	stated("turned away and pushed out, as predicted − as counted", fmt.Sprintf("0 of %s", count(l.overLimit)), "0")
	stated("pages looked at; with a worker that stays, or a counter, gone wrong or back", fmt.Sprintf("%d; 0", len(w.samples)), "0")
	stated("series of workers that have gone, but for counters of hits", "0", "0")
	k.flat(name, w)
	return nil
}

// flat compares the parts of the soak.
func (k *soaking) flat(name string, w *witness) {
	most := func(n int, f func(sample) float64) float64 { return slices.Max(w.third(n, f)) }
	ids := func(s sample) float64 { return s.ids }
	lines := func(s sample) float64 { return s.lines }
	k.table.add(row{
		measure: name + "ids on a page at most; series; bytes",
		ours:    fmt.Sprintf("%.0f; %s; %s", slices.Max([]float64{most(0, ids), most(1, ids), most(2, ids)}), count(int(most(2, lines))), megabytes(int64(most(2, func(s sample) float64 { return s.bytes })))),
		must:    fmt.Sprintf("≤ %d", soakLimit), met: true, gate: true,
	})
	// The middle one of a part does not depend on which moment of a collection it was.
	resident := func(n int) (middle, most float64) {
		all := w.third(n, func(s sample) float64 { return s.resident })
		return all[len(all)/2], all[len(all)-1]
	}
	var shown []string
	var middles [3]float64
	for n := range middles {
		var most float64
		middles[n], most = resident(n)
		shown = append(shown, fmt.Sprintf("%s (%s)", megabytes(int64(middles[n])), megabytes(int64(most))))
	}
	ratio := middles[2] / middles[1]
	k.table.add(row{
		measure: name + "resident memory in the first, second, last third: median (most); last beside second", ours: strings.Join(shown, ", "),
		ratio: times(ratio), must: "≤ 1.15", met: ratio <= 1.15, gate: true,
	})
	// A connection more or less is no leak: one would show a thousand times over.
	const slack = 10
	for _, f := range []struct {
		name string
		of   func(sample) float64
	}{
		{"goroutines", func(s sample) float64 { return s.goroutines }},
		{"file descriptors", func(s sample) float64 { return s.descriptors }},
	} {
		first, last := w.third(0, f.of), w.third(2, f.of)
		k.table.add(row{
			measure: name + f.name + " in the first third, in the last: least (most)",
			ours:    fmt.Sprintf("%.0f (%.0f), %.0f (%.0f)", first[0], first[len(first)-1], last[0], last[len(last)-1]),
			must:    fmt.Sprintf("at most %d more", slack), met: last[0] <= first[len(first)-1]+slack, gate: true,
		})
	}
}
