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

// TestSlotLimiterFitsManyRanksOfOneHost adds 64 ranks with three topics each, under the usual
// limit of file descriptors.
func TestSlotLimiterFitsManyRanksOfOneHost(t *testing.T) {
	l := newSlotLimiter(MaxZMQSubscriptions(65_536, 1024))
	for port := range 64 * 3 {
		l.enqueue(newTestSource("10.0.0.1", 1+port))
		if l.next() == nil {
			t.Fatalf("publisher %d gets no slot", port)
		}
	}
}

// TestSlotLimiterGivesHostAtMostHalf adds many sources of one host. The hosts must take turns.
func TestSlotLimiterGivesHostAtMostHalf(t *testing.T) {
	l := newSlotLimiter(10)
	for port := range 100 {
		l.enqueue(newTestSource("a", 1+port))
	}
	for host := range 3 {
		for port := range 3 {
			l.enqueue(newTestSource(fmt.Sprint("b", host), 1+port))
		}
	}
	got := make(map[string]int)
	for src := l.next(); src != nil; src = l.next() {
		got[src.host]++
	}
	if got["a"] != 3 || got["b0"] != 3 || got["b1"] != 2 || got["b2"] != 2 {
		t.Errorf("slots by host: %v, want them in turn", got)
	}
	l = newSlotLimiter(11)
	for port := range 100 {
		l.enqueue(newTestSource("a", 1+port))
	}
	n := 0
	for src := l.next(); src != nil; src = l.next() {
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
		l := newSlotLimiter(most)
		var waiting, subscribed []*zmqSource
		removeRandom := func(all *[]*zmqSource) (src *zmqSource) {
			i := r.IntN(len(*all))
			src = (*all)[i]
			*all = append((*all)[:i], (*all)[i+1:]...)
			return src
		}
		countOfHost := func(all []*zmqSource, host string) (n int) {
			for _, src := range all {
				if src.host == host {
					n++
				}
			}
			return n
		}
		for range 1000 {
			switch n := r.IntN(10); {
			case n < 5:
				src := newTestSource(fmt.Sprint(r.IntN(5)), 1+r.IntN(5))
				l.enqueue(src)
				waiting = append(waiting, src)
			case n < 7 && len(waiting) > 0:
				l.cancel(removeRandom(&waiting))
			case n < 8 && len(subscribed) > 0:
				l.release(removeRandom(&subscribed))
			}
			for src := l.next(); src != nil; src = l.next() {
				subscribed = append(subscribed, src)
				for i, o := range waiting {
					if o == src {
						waiting = append(waiting[:i], waiting[i+1:]...)
						break
					}
				}
			}
			if len(subscribed) > most || l.used != len(subscribed) || l.waiting != len(waiting) {
				t.Fatalf("%d of %d slots are taken, the limiter has %d; %d wait, the limiter has %d", len(subscribed), most, l.used, len(waiting), l.waiting)
			}
			for _, src := range waiting {
				if used := countOfHost(subscribed, src.host); len(subscribed) < most && used < (most+1)/2 {
					t.Fatalf("a source waits at host %s, which has %d of %d slots, and %d are free", src.host, used, most, most-len(subscribed))
				}
			}
			for _, src := range subscribed {
				if used := countOfHost(subscribed, src.host); used > (most+1)/2 {
					t.Fatalf("host %s has %d of %d slots", src.host, used, most)
				}
			}
		}
		for len(waiting) > 0 {
			l.cancel(removeRandom(&waiting))
		}
		for len(subscribed) > 0 {
			l.release(removeRandom(&subscribed))
		}
		if len(l.hosts) > 0 || l.open.Len() > 0 {
			t.Errorf("%d hosts are left after all sources were removed", len(l.hosts))
		}
	}
}
