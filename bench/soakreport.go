package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// figures says what the soak has shown. What it has counted is right, or it had ended
// before.
func (k *soakRun) report(w *sampler) error {
	if len(w.samples) < 6 {
		return fmt.Errorf("only %d pages were looked at", len(w.samples))
	}
	l := &k.expected
	name := fmt.Sprintf("soak of %.0f s, --max-workers %d: ", time.Since(k.begin).Seconds(), soakMaxWorkers)
	stated := func(measure, ours, must string) {
		k.table.add(row{measure: name + measure, ours: ours, target: must, met: true, gate: true})
	}
	stated("registrations that came and went", count(k.rounds*soakTransient), "≥ "+count(minTransient))
	stated("ids that nobody has, each hit once", count(k.rounds*soakForged), "≥ "+count(minForged))
	stated("made-up endpoints, named by events; by answers", fmt.Sprintf("%s; %s", count(k.rounds*soakMadeUp), count(k.rounds*soakMadeUp)), "as many are of no use, as predicted")
	stated("endpoints that were registered and went", count(k.rounds*soakRegistered), "up to 1,024 are remembered, the others counted")
	stated("hit-rate events published − counted; dropped", fmt.Sprintf("0 of %s; 0", count(l.events)), "0; 0")
	stated("turned away and pushed out, as predicted − as counted", fmt.Sprintf("0 of %s", count(l.overLimit)), "0")
	stated("pages looked at; with a worker that stays, or a counter, gone wrong or back", fmt.Sprintf("%d; 0", len(w.samples)), "0")
	stated("series of workers that have gone, but for counters of hits", "0", "0")
	k.checkGrowth(name, w)
	return nil
}

// flat compares the parts of the soak.
func (k *soakRun) checkGrowth(name string, w *sampler) {
	most := func(n int, f func(sample) float64) float64 { return slices.Max(w.sortedThird(n, f)) }
	ids := func(s sample) float64 { return s.ids }
	lines := func(s sample) float64 { return s.lines }
	k.table.add(row{
		measure: name + "ids on a page at most; series; bytes",
		ours:    fmt.Sprintf("%.0f; %s; %s", slices.Max([]float64{most(0, ids), most(1, ids), most(2, ids)}), count(int(most(2, lines))), megabytes(int64(most(2, func(s sample) float64 { return s.bytes })))),
		target:  fmt.Sprintf("≤ %d", soakMaxWorkers), met: true, gate: true,
	})
	// The middle one of a part does not depend on which moment of a collection it was.
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
		measure: name + "resident memory in the first, second, last third: median (most); last beside second", ours: strings.Join(shown, ", "),
		ratio: times(ratio), target: "≤ 1.15", met: ratio <= 1.15, gate: true,
	})
	var least []string // which is what is left by a collection
	for n := range middles {
		least = append(least, megabytes(int64(w.sortedThird(n, func(s sample) float64 { return s.heap })[0])))
	}
	k.table.add(row{measure: name + "heap in the first, second, last third: least", ours: strings.Join(least, ", ")})
	// A connection more or less is no leak: one would show a thousand times over.
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
			measure: name + f.name + " in the first third, in the last: least (most)",
			ours:    fmt.Sprintf("%.0f (%.0f), %.0f (%.0f)", first[0], first[len(first)-1], last[0], last[len(last)-1]),
			target:  fmt.Sprintf("at most %d more", slack), met: last[0] <= first[len(first)-1]+slack, gate: true,
		})
	}
}
