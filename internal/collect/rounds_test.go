package collect

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
)

// TestManyThatStallTakeNoPlaceOfTheOthers once they are known.
func TestManyThatStallTakeNoPlaceOfTheOthers(t *testing.T) {
	t.Parallel()
	const many = 40
	f := newFarm(t)
	var mu sync.Mutex
	stalling, most := 0, 0
	stalls := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		stalling++
		most = max(most, stalling)
		mu.Unlock()
		stall(w, r)
		mu.Lock()
		stalling--
		mu.Unlock()
	}
	for id := range uint64(many) {
		f.join(1+id, stalls)
	}
	f.join(1000, blocks(7))
	f.scrape(nil)
	for id := range uint64(many) {
		f.scraped(1+id, 1)
	}
	devstacktest.Until(t, func() error { // those of the first time
		mu.Lock()
		defer mu.Unlock()
		if stalling > slowPlaces {
			return fmt.Errorf("%d stall", stalling)
		}
		most = 0
		return nil
	})
	f.mu.Lock()
	before, atOnce := f.asked[1000], f.most
	f.mu.Unlock()
	f.scraped(1000, before+30)
	mu.Lock()
	defer mu.Unlock()
	// The server hears of the end of a request a little later than the Scraper.
	if most >= quickPlaces || atOnce >= many {
		t.Errorf("%d stalled at once, want some %d; %d were asked at once, want some %d", most, slowPlaces, atOnce, quickPlaces+slowPlaces)
	}
	if most == 0 {
		t.Error("those that stall are asked no more")
	}
	f.shows(map[uint64]fleet.Load{1000: inUse(7)})
}

func TestWhatWasScrapedOutlivesAFailureAndNotMany(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	var mu sync.Mutex
	answers := 2
	f.join(1, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		answers--
		down := answers < 0
		mu.Unlock()
		if down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		blocks(40)(w, r)
	})
	f.scrape(func(s *Scraper) { s.Interval = 2 * time.Second }) // a busy machine may make a pause
	f.shows(map[uint64]fleet.Load{1: inUse(40)})
	f.scraped(1, 3)
	devstacktest.Until(t, func() error {
		w := f.fleet.Snapshot().Workers[0]
		errs := f.fleet.Tally.Scrapes(fleet.ScrapeError)
		if !w.Load.OK && errs < 2 {
			t.Fatalf("the load is gone after %d failures", errs)
		}
		if w.Load.OK {
			return fmt.Errorf("the load is there after %d failures", errs)
		}
		if w.Up || !w.Listed {
			t.Errorf("the worker is shown as %+v, want silent", w)
		}
		return nil
	})
	mu.Lock()
	answers = 1000
	mu.Unlock()
	f.shows(map[uint64]fleet.Load{1: inUse(40)})
}

func TestAWorkerThatLeavesIsAskedNoMore(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	f.join(1, blocks(1))
	f.join(2, blocks(2))
	f.scrape(nil)
	f.scraped(2, 1)
	f.fleet.Deregister("", fleet.Instance{Endpoint: ofBackend, ID: 2})
	f.shows(map[uint64]fleet.Load{1: inUse(1)})
	f.mu.Lock()
	begin := f.asked[1]
	f.mu.Unlock()
	f.scraped(1, begin+2) // the rounds that knew of it are over
	f.mu.Lock()
	asked := f.asked[2]
	f.mu.Unlock()
	f.scraped(1, begin+5)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked[2] != asked {
		t.Errorf("asked %d times, then %d", asked, f.asked[2])
	}
}

func TestNobodyIsAskedBeforeTheRegistryIsKnown(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	f.fleet = fleet.New(fleet.Target{}, 1000, true)
	f.scrape(nil)
	f.join(1, blocks(40))
	f.shows(nil)
	f.fleet.Sync(fleet.Listing{Instances: map[string]fleet.InstanceEntry{
		"": {Instance: fleet.Instance{Endpoint: ofBackend, ID: 1}, Registration: fleet.Registration{Publishes: true}},
	}})
	f.scraped(1, 1)
	f.shows(map[uint64]fleet.Load{1: inUse(40)})
}

func TestPagesAreSpreadOverARound(t *testing.T) {
	t.Parallel()
	const tenths = 10
	var pages [tenths]int
	for i := range 10_000 {
		pages[int(phase(fmt.Sprintf("http://192.0.2.%d:%d/metrics", i%250, 9000+i/250))*tenths)]++
	}
	for i, n := range pages {
		if n < 850 || n > 1150 {
			t.Errorf("%d of 10,000 pages are read in the tenth %d of a round", n, i)
		}
	}
}

// TestWhereThereAreNotPlacesEnoughRoundsAreLonger and nothing is forgotten because of that.
func TestWhereThereAreNotPlacesEnoughRoundsAreLonger(t *testing.T) {
	t.Parallel()
	const many, each = 100, 200 * time.Millisecond // a second for all of them, of rounds of a tenth
	f := newFarm(t)
	want := make(map[uint64]fleet.Load)
	for id := range uint64(many) {
		want[1+id] = inUse(id)
		f.join(1+id, func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(each):
				blocks(int(id))(w, r)
			case <-r.Context().Done():
			}
		})
	}
	f.scrape(nil)
	f.shows(want)
	f.mu.Lock()
	before := f.asked[1]
	f.mu.Unlock()
	devstacktest.Until(t, func() error {
		for _, w := range f.fleet.Snapshot().Workers {
			if !w.Load.OK {
				t.Fatalf("worker %d has no load any more", w.ID.Lease)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if asked := f.asked[1] - before; asked < 5 {
			return fmt.Errorf("asked %d times", asked)
		}
		return nil
	})
	if got := f.fleet.Tally.Scrapes(fleet.ScrapeError); got > 0 {
		t.Errorf("%d scrapes failed", got)
	}
}
