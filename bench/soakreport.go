package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// report adds the results of the soak to the table. A wrong count would have ended the soak
// earlier.
func (k *soakRun) report(w *sampler) error {
	if len(w.samples) < 6 {
		return fmt.Errorf("only %d scrapes were checked", len(w.samples))
	}
	l := &k.expected
	name := fmt.Sprintf("soak of %.0f s, --max-workers %d: ", time.Since(k.begin).Seconds(), soakMaxWorkers)
	addMet := func(measure, ours, target string) {
		k.table.add(row{measure: name + measure, ours: ours, target: target, met: true, gate: true})
	}
	addMet("workers that registered and left", count(k.rounds*soakTransient), "≥ "+count(minTransient))
	addMet("ids that belong to no worker, each hit once", count(k.rounds*soakForged), "≥ "+count(minForged))
	addMet("made-up endpoints, in events; in poll replies", fmt.Sprintf("%s; %s", count(k.rounds*soakMadeUp), count(k.rounds*soakMadeUp)), "as many rejected, as predicted")
	addMet("endpoints that were registered and left", count(k.rounds*soakRegistered), "up to 1,024 are remembered, the others counted")
	addMet("hit-rate events published − counted; dropped", fmt.Sprintf("0 of %s; 0", count(l.events)), "0; 0")
	addMet("rejected and evicted, as predicted − as counted", fmt.Sprintf("0 of %s", count(l.overLimit)), "0")
	addMet("scrapes checked; with a wrong value of a permanent worker, or a counter that decreased", fmt.Sprintf("%d; 0", len(w.samples)), "0")
	addMet("series of workers that have left, except counters of hits", "0", "0")
	k.checkGrowth(name, w)
	return nil
}

// checkGrowth compares the thirds of the soak with each other.
func (k *soakRun) checkGrowth(name string, w *sampler) {
	most := func(n int, f func(sample) float64) float64 { return slices.Max(w.sortedThird(n, f)) }
	ids := func(s sample) float64 { return s.ids }
	lines := func(s sample) float64 { return s.lines }
	k.table.add(row{
		measure: name + "largest number of ids in one scrape; of series; of bytes",
		ours:    fmt.Sprintf("%.0f; %s; %s", slices.Max([]float64{most(0, ids), most(1, ids), most(2, ids)}), count(int(most(2, lines))), megabytes(int64(most(2, func(s sample) float64 { return s.bytes })))),
		target:  fmt.Sprintf("≤ %d", soakMaxWorkers), met: true, gate: true,
	})
	// The median does not depend on when the garbage collector ran.
	resident := func(n int) (middle, most float64) {
		all := w.sortedThird(n, func(s sample) float64 { return s.resident })
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
		measure: name + "resident memory in the first, second, last third: median (max); last compared with second", ours: strings.Join(shown, ", "),
		ratio: times(ratio), target: "≤ 1.15", met: ratio <= 1.15, gate: true,
	})
	var least []string // the smallest heap is what remains after a garbage collection
	for n := range middles {
		least = append(least, megabytes(int64(w.sortedThird(n, func(s sample) float64 { return s.heap })[0])))
	}
	k.table.add(row{measure: name + "heap in the first, second, last third: min", ours: strings.Join(least, ", ")})
	// Every round would add to a leak, so that a few connections more or less do not matter.
	const slack = 10
	for _, f := range []struct {
		name string
		of   func(sample) float64
	}{
		{"goroutines", func(s sample) float64 { return s.goroutines }},
		{"file descriptors", func(s sample) float64 { return s.descriptors }},
	} {
		first, last := w.sortedThird(0, f.of), w.sortedThird(2, f.of)
		k.table.add(row{
			measure: name + f.name + " in the first third, in the last: min (max)",
			ours:    fmt.Sprintf("%.0f (%.0f), %.0f (%.0f)", first[0], first[len(first)-1], last[0], last[len(last)-1]),
			target:  fmt.Sprintf("at most %d more", slack), met: last[0] <= first[len(first)-1]+slack, gate: true,
		})
	}
}
