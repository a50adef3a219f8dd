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

// rejections are how many messages of a kind a page says were rejected, for whatever reason.
func (p page) rejections(k stats.Kind) (n float64) {
	for _, r := range stats.Reasons() {
		n += p.number(rejected(k, r))
	}
	return n
}

// TestGarbageEverywhere sends each file of the corpus, none of which is anything, by
// every way there is into the program.
func TestGarbageEverywhere(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	good := f.worker(1, 10)
	m := f.run()
	m.shows(merged(up, loads(good)))
	r := f.route(good)
	w := m.witnessed(always(loads(good)), always(page{workers("answering"): "1", workers("silent"): "0"}), countersOf(good), pairs(nil), bounded(1, 150<<20))
	before, err := m.page()
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
			f.put(key, valueOf(7))
			sent[kind]++
		}
	}
	var once sync.Once
	f.answers(func(respond func([]byte)) {
		once.Do(func() {
			for _, b := range corpus {
				respond(b)
			}
		})
	})
	sent[stats.StatsReply] = len(corpus)
	m.until(func(now page) error {
		for kind, n := range sent {
			if got := now.rejections(kind) - before.rejections(kind); got != float64(n) {
				return fmt.Errorf("%v: %v rejected, want %d", kind, got, n)
			}
			// Of the good worker's own kinds there are good ones too.
			if got := now.number(messages(kind)) - before.number(messages(kind)); got < float64(n) || got > float64(n) && kind != stats.StatsReply && kind != stats.HitRate {
				return fmt.Errorf("%v: %v received, want %d", kind, got, n)
			}
		}
		return nil
	})
	r.settle(m)
	w.stop()
	m.Terminate()
}

func (f *lab) put(key, value string) {
	f.t.Helper()
	if _, err := f.ec.Put(f.t.Context(), key, value); err != nil {
		f.t.Fatal(err)
	}
}
