//go:build real

package survival

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/stats"
)

// rejections returns how many messages of a kind were rejected, for whatever reason.
func (p samples) rejections(k stats.Kind) (n float64) {
	for _, r := range stats.Reasons() {
		n += p.number(rejectedSeries(k, r))
	}
	return n
}

// TestGarbageFromEverySource sends each file of the corpus, none of which is valid, to
// every input of the program.
func TestGarbageFromEverySource(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	control := f.startWorker(1, 10)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(control)))
	r := f.startRouter(control)
	w := m.startSampler(always(samplesOf(control)), always(samples{workersSeries("answering"): "1", workersSeries("silent"): "0"}), monotonicCounters(control), pairedHits(nil), boundSamples(1, 150<<20))
	before, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	corpus := garbage.Corpus()
	sent := make(map[stats.Kind]int)
	for kind, subjects := range garbage.Subjects() {
		for _, subject := range subjects {
			for _, b := range corpus {
				if err := f.nc.Publish(subject, b); err != nil {
					t.Fatal(err)
				}
				sent[kind]++
			}
		}
	}
	for i, name := range slices.Sorted(maps.Keys(corpus)) {
		for kind, keys := range garbage.Keys(uint64(1000 + i)) {
			for _, key := range keys {
				f.put(key, string(corpus[name]))
				sent[kind]++
			}
		}
	}
	for kind, keys := range garbage.BadKeys() {
		for _, key := range keys {
			f.put(key, instanceValueOf(7))
			sent[kind]++
		}
	}
	var once sync.Once
	f.answerPollsWith(func(respond func([]byte)) {
		once.Do(func() {
			for _, b := range corpus {
				respond(b)
			}
		})
	})
	sent[stats.StatsReply] = len(corpus)
	m.waitFor(func(now samples) error {
		for kind, n := range sent {
			if got := now.rejections(kind) - before.rejections(kind); got != float64(n) {
				return fmt.Errorf("%v: %v rejected, want %d", kind, got, n)
			}
			// Messages of the control worker are among the received ones of these kinds.
			if got := now.number(messagesSeries(kind)) - before.number(messagesSeries(kind)); got < float64(n) || got > float64(n) && kind != stats.StatsReply && kind != stats.HitRate {
				return fmt.Errorf("%v: %v received, want %d", kind, got, n)
			}
		}
		return nil
	})
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

func (f *environment) put(key, value string) {
	f.t.Helper()
	if _, err := f.ec.Put(f.t.Context(), key, value); err != nil {
		f.t.Fatal(err)
	}
}
