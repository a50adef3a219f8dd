package collect

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestMaxZMQSubscriptionsFollowsLimits(t *testing.T) {
	for _, c := range []struct{ workers, descriptors, want int }{
		{1, 0, 1024},
		{256, 0, 1024},
		{1000, 0, 4000},
		{8192, 0, 16_384},
		{65_536, 0, 16_384},
		{100_000, 0, 25_000},
		{65_536, 1 << 20, 16_384},
		{65_536, 4096, 3584}, // 512 are reserved
		{65_536, 1024, 512},
		{65_536, 1000, 500}, // half is reserved
		{65_536, 48, 24},
		{65_536, 1, 1},
	} {
		if got := MaxZMQSubscriptions(c.workers, c.descriptors); got != c.want {
			t.Errorf("%d workers, %d file descriptors: %d slots, want %d", c.workers, c.descriptors, got, c.want)
		}
	}
}

func newTestSource(host string, port int) *zmqSource {
	return newZMQSource(sourceKey{address: fmt.Sprintf("tcp://%s:%d", host, port)})
}

// TestSlotLimiterFitsManyRanksOfOneHost has 64 ranks with three topics each, under the usual
// limit of file descriptors.
func TestSlotLimiterFitsManyRanksOfOneHost(t *testing.T) {
	p := newSlotLimiter(MaxZMQSubscriptions(65_536, 1024))
	for port := range 64 * 3 {
		p.enqueue(newTestSource("10.0.0.1", 1+port))
		if p.next() == nil {
			t.Fatalf("publisher %d gets no slot", port)
		}
	}
}

// TestSlotLimiterGivesHostAtMostHalf has one host with many sources. The hosts take turns.
func TestSlotLimiterGivesHostAtMostHalf(t *testing.T) {
	p := newSlotLimiter(10)
	for port := range 100 {
		p.enqueue(newTestSource("a", 1+port))
	}
	for host := range 3 {
		for port := range 3 {
			p.enqueue(newTestSource(fmt.Sprint("b", host), 1+port))
		}
	}
	got := make(map[string]int)
	for w := p.next(); w != nil; w = p.next() {
		got[w.host]++
	}
	if got["a"] != 3 || got["b0"] != 3 || got["b1"] != 2 || got["b2"] != 2 {
		t.Errorf("slots by host: %v, want them in turn", got)
	}
	p = newSlotLimiter(11)
	for port := range 100 {
		p.enqueue(newTestSource("a", 1+port))
	}
	n := 0
	for w := p.next(); w != nil; w = p.next() {
		n++
	}
	if n != 6 {
		t.Errorf("a single host has %d of 11 slots, want 6", n)
	}
}

// TestSlotLimiterMatchesModel compares the limiter with a simple model.
func TestSlotLimiterMatchesModel(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 0))
		most := 1 + r.IntN(20)
		p := newSlotLimiter(most)
		var waiting, placed []*zmqSource
		take := func(all *[]*zmqSource) (w *zmqSource) {
			i := r.IntN(len(*all))
			w = (*all)[i]
			*all = append((*all)[:i], (*all)[i+1:]...)
			return w
		}
		of := func(all []*zmqSource, host string) (n int) {
			for _, w := range all {
				if w.host == host {
					n++
				}
			}
			return n
		}
		for range 1000 {
			switch n := r.IntN(10); {
			case n < 5:
				w := newTestSource(fmt.Sprint(r.IntN(5)), 1+r.IntN(5))
				p.enqueue(w)
				waiting = append(waiting, w)
			case n < 7 && len(waiting) > 0:
				p.cancel(take(&waiting))
			case n < 8 && len(placed) > 0:
				p.release(take(&placed))
			}
			for w := p.next(); w != nil; w = p.next() {
				placed = append(placed, w)
				for i, o := range waiting {
					if o == w {
						waiting = append(waiting[:i], waiting[i+1:]...)
						break
					}
				}
			}
			if len(placed) > most || p.used != len(placed) || p.waiting != len(waiting) {
				t.Fatalf("%d of %d slots are taken, the limiter has %d; %d wait, the limiter has %d", len(placed), most, p.used, len(waiting), p.waiting)
			}
			for _, w := range waiting {
				if mine := of(placed, w.host); len(placed) < most && mine < (most+1)/2 {
					t.Fatalf("a source waits at host %s, which has %d of %d slots, and %d are free", w.host, mine, most, most-len(placed))
				}
			}
			for _, w := range placed {
				if mine := of(placed, w.host); mine > (most+1)/2 {
					t.Fatalf("host %s has %d of %d slots", w.host, mine, most)
				}
			}
		}
		for len(waiting) > 0 {
			p.cancel(take(&waiting))
		}
		for len(placed) > 0 {
			p.release(take(&placed))
		}
		if len(p.hosts) > 0 || p.open.Len() > 0 {
			t.Errorf("%d hosts are left after all sources were removed", len(p.hosts))
		}
	}
}
