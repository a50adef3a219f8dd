package fleet

import (
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// scrape records a scrape of worker 1 at generate.
func scrape(f *Fleet, values ...ScrapedValues) { scrapeOf(f, 1, values...) }

func scrapeOf(f *Fleet, id uint64, values ...ScrapedValues) {
	f.RecordScrape(ScrapeTarget{Instance: Instance{Endpoint: generate, ID: id}}, values)
}

// unnamed returns values without an endpoint, as in the metrics of engines.
func unnamed(l Load) ScrapedValues { return ScrapedValues{Load: l} }

func n(v uint64) Opt[uint64]          { return Some(v) }
func share(v float64) Opt[float64]    { return Some(v) }
func row(f *Fleet, i int) WorkerState { return f.Snapshot().Workers[i] }

// fullMetrics has every value that metrics can have.
var fullMetrics = Load{
	ActiveSlots: n(7), TotalSlots: n(16), Waiting: n(3), KVActive: n(60), KVTotal: n(200), CacheUsage: share(0.3), HitRate: share(0.25),
}

// TestScrapeFillsMissingValues checks each value.
func TestScrapeFillsMissingValues(t *testing.T) {
	event := func(l Load) func(*Fleet) {
		return func(f *Fleet) { f.RecordLoad(Origin{Endpoint: generate, Worker: 1}, FromLoadEvent, l) }
	}
	active := func(blocks uint64) func(*Fleet) { return func(f *Fleet) { publishAt(f, generate, 1, blocks) } }
	pass := func(f *Fleet) {
		f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1}, Pass{Running: 2, Waiting: 9})
	}
	carded := func(f *Fleet) { setCard(f, generate, 1) } // 100 blocks, 8 slots
	for name, c := range map[string]struct {
		known   []func(*Fleet)
		scraped Load
		want    Load
		source  Source
	}{
		"no other source":                     {nil, fullMetrics, fullMetrics, FromScrape},
		"card":                                {[]func(*Fleet){carded}, fullMetrics, fullMetrics.with(func(l *Load) { l.KVTotal, l.TotalSlots = n(100), n(8) }), FromScrape},
		"forward pass":                        {[]func(*Fleet){pass}, fullMetrics, fullMetrics.with(func(l *Load) { l.ActiveSlots, l.Waiting = n(2), n(9) }), FromScrape},
		"published blocks, scraped total":     {[]func(*Fleet){active(50)}, fullMetrics, fullMetrics.with(func(l *Load) { l.KVActive, l.CacheUsage = n(50), share(0.25) }), FromActiveLoad},
		"published blocks, total of the card": {[]func(*Fleet){active(50), carded}, fullMetrics, Load{n(7), n(8), n(3), n(50), n(100), share(0.5), share(0.25), Opt[uint64]{}, Opt[uint64]{}, Opt[uint64]{}}, FromActiveLoad},
		"published blocks, no total":          {[]func(*Fleet){active(50)}, Load{CacheUsage: share(0.5)}, Load{KVActive: n(50), CacheUsage: share(0.5)}, FromActiveLoad},
		"published load":                      {[]func(*Fleet){event(Load{n(1), n(2), n(3), n(4), n(5), share(0.8), share(0.9), n(6), n(7), n(8)})}, fullMetrics, Load{n(1), n(2), n(3), n(4), n(5), share(0.8), share(0.9), n(6), n(7), n(8)}, FromLoadEvent},
		"published load without blocks":       {[]func(*Fleet){event(Load{Waiting: n(0)})}, fullMetrics, fullMetrics.with(func(l *Load) { l.Waiting = n(0) }), FromScrape},
		"usage and total":                     {nil, Load{CacheUsage: share(0.333), KVTotal: n(10)}, Load{KVActive: n(3), CacheUsage: share(0.333), KVTotal: n(10)}, FromScrape},
		"usage, total of the card":            {[]func(*Fleet){carded}, Load{CacheUsage: share(0.125)}, Load{KVActive: n(13), KVTotal: n(100), TotalSlots: n(8), CacheUsage: share(0.125)}, FromScrape},
		"usage, no total":                     {nil, Load{CacheUsage: share(0.125)}, Load{CacheUsage: share(0.125)}, FromScrape},
		"blocks and total, no usage":          {nil, Load{KVActive: n(1), KVTotal: n(4)}, Load{KVActive: n(1), KVTotal: n(4), CacheUsage: share(0.25)}, FromScrape},
		"forward pass, no blocks":             {[]func(*Fleet){pass}, Load{HitRate: share(0.5)}, Load{ActiveSlots: n(2), Waiting: n(9), HitRate: share(0.5)}, FromPass},
	} {
		t.Run(name, func(t *testing.T) {
			for _, scrapeFirst := range []bool{false, true} { // the order does not matter
				f := newFleet(everything, largeLimit)
				registerPublishing(f, generate, 1)
				if scrapeFirst {
					scrape(f, unnamed(c.scraped))
				}
				for _, known := range c.known {
					known(f)
				}
				if !scrapeFirst {
					scrape(f, unnamed(c.scraped))
				}
				checkInvariants(t, f)
				w := row(f, 0)
				testutil.Equal(t, "load", w.Load, Some(c.want))
				testutil.Equal(t, "source", w.Source, c.source)
				testutil.Equal(t, "up", w.Up, true)
				testutil.Equal(t, "answering", f.Snapshot().Endpoints[0].Answering, 1)
			}
		})
	}
}

func (l Load) with(change func(*Load)) Load {
	change(&l)
	return l
}

func TestScrapeLoadAgeFollowsSource(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	scrape(f, unnamed(fullMetrics))
	after(f, time.Second)
	f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1}, Pass{})
	after(f, 5*time.Second)
	testutil.Equal(t, "age of scraped blocks", row(f, 0).LoadAge, 5*time.Second)
	scrape(f, unnamed(Load{Waiting: n(1)}))
	after(f, 6*time.Second)
	testutil.Equal(t, "age of a pass", row(f, 0).LoadAge, 5*time.Second)
	publishAt(f, generate, 1, 3)
	after(f, 8*time.Second)
	testutil.Equal(t, "age of a published load", row(f, 0).LoadAge, 2*time.Second)
}

func TestScrapeForgetsMissingValues(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	scrape(f, unnamed(Load{KVActive: n(5), KVTotal: n(9), Waiting: n(2)}))
	scrape(f, unnamed(Load{KVActive: n(6)}))
	testutil.Equal(t, "load", row(f, 0).Load.V, Load{KVActive: n(6)})
	scrape(f)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
}

func TestScrapeExpires(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1, 2)
	scrapeOf(f, 1, unnamed(fullMetrics))
	after(f, time.Second)
	scrapeOf(f, 2, unnamed(fullMetrics))
	publishAt(f, generate, 2, 50)
	after(f, 10*time.Second)
	f.ExpireScraped(10 * time.Second)
	wantShown(t, f, "backend/generate: 2 answering mean 55", "  1 up kv 60", "  2 up kv 50")
	after(f, 10*time.Second+1)
	f.ExpireScraped(10 * time.Second)
	wantShown(t, f, "backend/generate: 1 answering 1 silent mean 50", "  1 down", "  2 up kv 50")
	after(f, time.Minute)
	f.ExpireScraped(10 * time.Second)
	wantShown(t, f, "backend/generate: 1 answering 1 silent", "  1 down", "  2 up kv 50")
	testutil.Equal(t, "load", row(f, 1).Load.V, Load{KVActive: n(50)})
}

func TestScrapeIsForgottenOnDeregistration(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	setCard(f, generate, 1)
	scrape(f, unnamed(fullMetrics))
	deregister(f, generate, 1)
	registerPublishing(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	scrape(f, unnamed(fullMetrics))
	f.Sync(Listing{})
	scrape(f, unnamed(fullMetrics))
	wantShown(t, f)
	testutil.Equal(t, "workers", f.workers.len(), 0)
}

func TestScrapeOfFormerProcessIsDropped(t *testing.T) {
	f := newFleet(everything, largeLimit)
	in := Instance{Endpoint: generate, ID: 1}
	f.Register(keyOf(in), in, Registration{Publishes: true, Transport: "192.0.2.2:1000/1"})
	former := f.ScrapeTargets(false)[0]
	f.RecordScrape(former, []ScrapedValues{unnamed(fullMetrics)})
	wantShown(t, f, "backend/generate: 1 answering mean 60", "  1 up kv 60")
	f.Register(keyOf(in), in, Registration{Publishes: true, Transport: "192.0.2.2:2000/1"})
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	f.RecordScrape(former, []ScrapedValues{unnamed(fullMetrics)})
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	f.RecordScrape(f.ScrapeTargets(false)[0], []ScrapedValues{unnamed(fullMetrics)})
	wantShown(t, f, "backend/generate: 1 answering mean 60", "  1 up kv 60")
}

// TestScrapeHitRateOfLastLookups checks the rate between scrapes, and after a restart of the
// engine.
func TestScrapeHitRateOfLastLookups(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	for i, c := range []struct {
		lookups, hits uint64
		want          Opt[float64]
	}{
		{0, 0, Opt[float64]{}},
		{100, 25, share(0.25)},
		{100, 25, share(0.25)}, // no lookups
		{300, 175, share(0.75)},
		{400, 175, share(0)},
		{10, 5, share(0.5)}, // the engine restarted
		{0, 0, Opt[float64]{}},
		{40, 10, share(0.25)},
		{50, 30, share(1)}, // more hits than lookups: the engine does not read both counters at the same time
	} {
		scrape(f, ScrapedValues{Load: Load{Waiting: n(0)}, Lookups: n(c.lookups), Hits: n(c.hits)})
		checkInvariants(t, f)
		if got := row(f, 0).Load.V.HitRate; got != c.want {
			t.Errorf("scrape %d: hit rate %v, want %v", i, got, c.want)
		}
	}
	scrape(f, ScrapedValues{Load: Load{HitRate: share(0.125)}, Lookups: n(50), Hits: n(30)})
	testutil.Equal(t, "hit rate in the metrics", row(f, 0).Load.V.HitRate, share(0.125))
}

func TestScrapeInflightRequestsAreFallback(t *testing.T) {
	inflight := ScrapedValues{Endpoint: generate, Inflight: n(24)}
	for name, c := range map[string]struct {
		known   func(*Fleet)
		scraped []ScrapedValues
		want    Opt[uint64]
	}{
		"endpoint that may have no load":     {func(*Fleet) {}, []ScrapedValues{inflight}, Opt[uint64]{}},
		"endpoint with a card":               {func(f *Fleet) { setCard(f, generate, 1) }, []ScrapedValues{inflight}, n(24)},
		"endpoint with a load":               {func(f *Fleet) { publishAt(f, generate, 1, 5) }, []ScrapedValues{inflight}, n(24)},
		"endpoint with an unattributed load": {func(f *Fleet) { publishUnattributed(f, 1, 5) }, []ScrapedValues{inflight}, n(24)},
		"engine has running requests":        {func(*Fleet) {}, []ScrapedValues{inflight, unnamed(Load{ActiveSlots: n(10)})}, n(10)},
		"engine has waiting requests only":   {func(*Fleet) {}, []ScrapedValues{inflight, unnamed(Load{Waiting: n(10)})}, n(24)},
		"forward pass":                       {func(f *Fleet) { f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1}, Pass{Running: 4}) }, []ScrapedValues{inflight}, n(4)},
		"several ranks": {func(f *Fleet) {
			setCard(f, generate, 1)
			f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: 1}, FromActiveLoad, Load{KVActive: n(5)})
			f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: 2}, FromActiveLoad, Load{KVActive: n(5)})
		}, []ScrapedValues{inflight}, Opt[uint64]{}},
		"several ranks in the card": {func(f *Fleet) {
			f.SetCard(keyOf(Instance{Endpoint: generate, ID: 1}), Instance{Endpoint: generate, ID: 1}, Card{Ranks: n(4)})
			f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: 1}, FromActiveLoad, Load{KVActive: n(5)})
		}, []ScrapedValues{inflight}, Opt[uint64]{}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			registerPublishing(f, generate, 1)
			c.known(f)
			for range 2 { // the second scrape must not depend on the first
				scrape(f, c.scraped...)
				checkInvariants(t, f)
				testutil.Equal(t, "requests", row(f, 0).Load.V.ActiveSlots, c.want)
			}
		})
	}
}

// TestScrapeCoversAllEndpointsOfProcess checks that values with an endpoint belong to it, and
// values without one to the endpoint with the load.
func TestScrapeCoversAllEndpointsOfProcess(t *testing.T) {
	clear := Endpoint{Component: "backend", Name: "clear_kv_blocks"} // first by name
	named := func(e Endpoint, l Load) ScrapedValues { return ScrapedValues{Endpoint: e, Load: l} }
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	registerPublishing(f, clear, 1)
	registerPublishing(f, prefill, 1)
	handlers := []ScrapedValues{{Endpoint: clear, Inflight: n(0)}, {Endpoint: generate, Inflight: n(2)}}

	scrape(f, append(handlers, named(generate, Load{Waiting: n(1)}), named(Endpoint{Component: "backend"}, Load{KVActive: n(40), KVTotal: n(100)}))...)
	wantShown(t, f, "backend/generate: 1 answering mean 40", "  1 up kv 40")
	testutil.Equal(t, "load", row(f, 0).Load.V, Load{KVActive: n(40), KVTotal: n(100), CacheUsage: share(0.4), Waiting: n(1), ActiveSlots: n(2)})

	scrape(f, named(prefill, Load{KVActive: n(7), KVTotal: n(10)}), named(generate, Load{KVActive: n(3), KVTotal: n(10)}))
	wantShown(t, f, "backend/generate: 1 answering mean 3", "  1 up kv 3", "prefill/generate: 1 answering mean 7", "  1 up kv 7")

	scrape(f)
	setCard(f, generate, 1)
	scrape(f, append(handlers, unnamed(Load{KVActive: n(9), KVTotal: n(10)}))...)
	wantShown(t, f, "backend/generate: 1 answering mean 9", "  1 up kv 9", "prefill/generate: not counted")
	testutil.Equal(t, "load", row(f, 0).Load.V.ActiveSlots, n(2))
}

func TestScrapeOfUnwatchedEndpointsIsDropped(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	registerPublishing(f, generate, 1)
	registerPublishing(f, prefill, 1)
	scrape(f,
		ScrapedValues{Endpoint: prefill, Load: fullMetrics},
		ScrapedValues{Endpoint: generate2, Load: fullMetrics},
		ScrapedValues{Endpoint: Endpoint{Component: "prefill"}, Load: fullMetrics})
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	scrapeOf(f, 2, unnamed(fullMetrics))
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
}

func TestScrapeKeepsRanksApart(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	ranks := func(usages ...float64) (values []ScrapedValues) {
		for i, u := range usages {
			values = append(values, ScrapedValues{Rank: uint32(i), Load: Load{CacheUsage: share(u), Waiting: n(1)}})
		}
		return values
	}
	setCard(f, generate, 1)
	scrape(f, ranks(0.5, 0.25, 0.75)...)
	checkInvariants(t, f)
	testutil.Equal(t, "load", row(f, 0).Load.V, Load{KVActive: n(150), KVTotal: n(300), CacheUsage: share(0.5), Waiting: n(3)})
	var blocks []Opt[uint64]
	for _, r := range row(f, 0).Ranks {
		blocks = append(blocks, r.Load.KVActive)
		testutil.Equal(t, "source", r.Source, FromScrape)
	}
	testutil.Equal(t, "blocks of the ranks", blocks, []Opt[uint64]{n(50), n(25), n(75)})

	f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: 1}, FromActiveLoad, Load{KVActive: n(90)})
	testutil.Equal(t, "blocks, of one rank by an event", row(f, 0).Load.V.KVActive, n(215))
	testutil.Equal(t, "source", row(f, 0).Source, FromActiveLoad)
	scrape(f, ranks(0.5)...)
	testutil.Equal(t, "blocks of the only scraped rank", row(f, 0).Load.V.KVActive, n(90))
}

// TestScrapeSingleRankMatchesAnyNumber checks an engine that is one rank of several, but may
// report the rank number 0.
func TestScrapeSingleRankMatchesAnyNumber(t *testing.T) {
	for name, at := range map[string]Endpoint{"named": generate, "not named": {}} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			registerPublishing(f, generate, 1)
			f.RecordLoad(Origin{Endpoint: at, Worker: 1, Rank: 3}, FromActiveLoad, Load{KVActive: n(5)})
			scrape(f, unnamed(Load{KVActive: n(6), KVTotal: n(10), Waiting: n(2)}))
			checkInvariants(t, f)
			testutil.Equal(t, "load", row(f, 0).Load.V, Load{KVActive: n(5), KVTotal: n(10), CacheUsage: share(0.5), Waiting: n(2)})
			testutil.Equal(t, "ranks", len(row(f, 0).Ranks), 0)
		})
	}
}

func TestScrapeMakesStaleLoadCurrent(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	publishAt(f, generate, 1, 40)
	poll(f, loadless(generate, lease(1)))
	poll(f)
	poll(f)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	scrape(f, unnamed(Load{Waiting: n(1)}))
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
}

func TestScrapeTargetsAreSortedWithAddresses(t *testing.T) {
	f := newFleet(backend, largeLimit)
	at := func(e Endpoint, id uint64, r Registration) {
		r.Publishes = true
		f.Register(keyOf(Instance{Endpoint: e, ID: id}), Instance{Endpoint: e, ID: id}, r)
	}
	at(generate, 10, Registration{Transport: "192.0.2.2:1/a"})
	at(generate, 9, Registration{Transport: "192.0.2.3:1/b", Metrics: "192.0.2.3:9090"})
	at(loadMetrics, 9, Registration{Transport: "192.0.2.3:1/c"})
	at(generate2, 8, Registration{})
	at(prefill, 7, Registration{Metrics: "192.0.2.9:9090"}) // not watched
	f.SetCard(keyOf(Instance{Endpoint: generate, ID: 10}), Instance{Endpoint: generate, ID: 10}, Card{Metrics: "192.0.2.2:8080"})
	f.SetCard(keyOf(Instance{Endpoint: loadMetrics, ID: 9}), Instance{Endpoint: loadMetrics, ID: 9}, Card{Metrics: "192.0.2.3:8080"})
	f.SetCard(keyOf(Instance{Endpoint: generate, ID: 11}), Instance{Endpoint: generate, ID: 11}, Card{Metrics: "192.0.2.4:8080"}) // not registered
	publishAt(f, generate2, 12, 1)                                                                                                // not registered either
	testutil.Equal(t, "scrape targets", f.ScrapeTargets(true), []ScrapeTarget{
		{Instance{generate, 10}, "192.0.2.2:1/a", "192.0.2.2:8080"},
		{Instance{generate2, 8}, "", ""},
		{Instance{loadMetrics, 9}, "192.0.2.3:1/c", "192.0.2.3:9090"},
	})
}

func TestScrapeTargetsLeaveOutCompleteLoads(t *testing.T) {
	load := Load{ActiveSlots: n(1), TotalSlots: n(2), Waiting: n(0), KVActive: n(3), KVTotal: n(4), HitRate: share(0)}
	lacks := func(change func(*Load)) Load { return load.with(change) }
	for name, c := range map[string]struct {
		load Load
		want int
	}{
		"complete":    {load, 0},
		"no blocks":   {lacks(func(l *Load) { l.KVActive.OK = false }), 1},
		"no total":    {lacks(func(l *Load) { l.KVTotal.OK = false }), 1},
		"no requests": {lacks(func(l *Load) { l.ActiveSlots.OK = false }), 1},
		"no slots":    {lacks(func(l *Load) { l.TotalSlots.OK = false }), 1},
		"no waiting":  {lacks(func(l *Load) { l.Waiting.OK = false }), 1},
		"no hit rate": {lacks(func(l *Load) { l.HitRate.OK = false }), 1},
		"no load":     {Load{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			registerPublishing(f, generate, 1)
			if c.load != (Load{}) {
				f.RecordLoad(Origin{Endpoint: generate, Worker: 1}, FromLoadEvent, c.load)
			}
			scrape(f, unnamed(fullMetrics)) // does not change whether a scrape is needed
			testutil.Equal(t, "incomplete", len(f.ScrapeTargets(true)), c.want)
			testutil.Equal(t, "all", len(f.ScrapeTargets(false)), 1)
		})
	}
}
