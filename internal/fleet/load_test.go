package fleet

import (
	"fmt"
	"math"
	"testing"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// ranksOf registers worker 1 and records a scrape with these loads of its ranks.
func ranksOf(f *Fleet, card Card, loads ...Load) ScrapeTarget {
	in := Instance{Endpoint: generate, ID: 1}
	f.Register(keyOf(in), in, Registration{Publishes: true})
	if card != (Card{}) {
		f.SetCard(keyOf(in), in, card)
	}
	target := ScrapeTarget{Instance: in}
	var values []ScrapedValues
	for i, l := range loads {
		values = append(values, ScrapedValues{Rank: uint32(i), Load: l})
	}
	f.RecordScrape(target, values)
	return target
}

// onlyWorker returns the one worker that the Fleet shows.
func onlyWorker(t *testing.T, f *Fleet) WorkerState {
	t.Helper()
	s := f.Snapshot()
	if len(s.Workers) != 1 {
		t.Fatalf("%d workers, want one", len(s.Workers))
	}
	return s.Workers[0]
}

// loadWith returns a load with the values that are not nil.
func loadWith(active, total, usage any) (l Load) {
	if v, ok := active.(int); ok {
		l.KVActive = Some(uint64(v))
	}
	if v, ok := total.(int); ok {
		l.KVTotal = Some(uint64(v))
	}
	if v, ok := usage.(float64); ok {
		l.CacheUsage = Some(v)
	}
	return l
}

// placeholderCase is what the ranks of a worker report, and what the Fleet must show.
type placeholderCase struct {
	card  Card
	ranks []Load
	want  []Load // of each rank; nil if there is only one
	whole Load
}

// check compares what the Fleet shows of its only worker with what it must show.
func (c placeholderCase) check(t *testing.T, f *Fleet) {
	t.Helper()
	w := onlyWorker(t, f)
	testutil.Equal(t, "load", w.Load.V, c.whole)
	for i := range c.want {
		testutil.Equal(t, fmt.Sprint("load of rank ", i), w.Ranks[i].Load, c.want[i])
	}
}

// placeholderCases has ranks with a total of 1 block, which Dynamo reports if it does not know
// the real total: a single rank, with a model card, and with ranks that have real totals.
var placeholderCases = map[string]placeholderCase{
	"one rank, with a usage": {
		ranks: []Load{loadWith(nil, 1, 0.37)},
		whole: loadWith(nil, nil, 0.37),
	},
	"one rank, with more blocks in use": {
		ranks: []Load{loadWith(5000, 1, nil)},
		whole: loadWith(5000, nil, nil),
	},
	"one rank, no contradiction": {
		ranks: []Load{loadWith(1, 1, 1.0)},
		whole: loadWith(1, 1, 1.0),
	},
	"with a card": {
		card: Card{KVTotal: Some[uint64](1000)}, ranks: []Load{loadWith(nil, 1, 0.37)},
		whole: loadWith(370, 1000, 0.37),
	},
	"with a card that has 1, too": {
		card: Card{KVTotal: Some[uint64](1)}, ranks: []Load{loadWith(0, 1, 0.37)},
		whole: loadWith(nil, nil, 0.37),
	},
	"with a card, idle": {
		card: Card{KVTotal: Some[uint64](1000)}, ranks: []Load{loadWith(0, 1, 0.0)},
		whole: loadWith(0, 1000, 0.0),
	},
	"before a rank with a total": { // the metrics in ai-dynamo/dynamo#12052
		ranks: []Load{loadWith(nil, 1, 0.25), loadWith(nil, 16384, 0.5)},
		want:  []Load{loadWith(4096, 16384, 0.25), loadWith(8192, 16384, 0.5)},
		whole: loadWith(4096+8192, 2*16384, 0.375),
	},
	"after a rank with a total, idle": {
		ranks: []Load{loadWith(nil, 16384, 0.5), loadWith(0, 1, 0.0)},
		want:  []Load{loadWith(8192, 16384, 0.5), loadWith(0, 16384, 0.0)},
		whole: loadWith(8192, 2*16384, 0.25),
	},
	"idle rank, with ranks that disagree": {
		ranks: []Load{loadWith(0, 1, 0.0), loadWith(nil, 100, 0.5), loadWith(nil, 200, 0.5)},
		want:  []Load{loadWith(0, nil, 0.0), loadWith(50, 100, 0.5), loadWith(100, 200, 0.5)},
		whole: loadWith(150, 300, 1.0/3),
	},
	"idle rank, with one that contradicts its total": {
		ranks: []Load{loadWith(0, 1, 0.0), loadWith(nil, 1, 0.5)},
		want:  []Load{loadWith(0, nil, 0.0), loadWith(nil, nil, 0.5)},
		whole: loadWith(nil, nil, 0.25),
	},
	"with ranks that disagree": {
		ranks: []Load{loadWith(0, 1, 0.5), loadWith(nil, 100, 0.5), loadWith(nil, 200, 0.5)},
		want:  []Load{loadWith(nil, nil, 0.5), loadWith(50, 100, 0.5), loadWith(100, 200, 0.5)},
		whole: loadWith(150, 300, 0.5), // of the ranks with both values
	},
}

func TestLoadPlaceholderTotalScraped(t *testing.T) {
	for name, c := range placeholderCases {
		t.Run(name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			ranksOf(f, c.card, c.ranks...)
			c.check(t, f)
		})
	}
}

func TestLoadPlaceholderTotalPolled(t *testing.T) {
	testPlaceholderTotal(t, func(f *Fleet, rank uint32, l Load) {
		f.RecordPollReply(PollReply{Endpoint: generate, Worker: lease(1), Outcome: Reported, Load: l, Rank: rank})
	})
}

func TestLoadPlaceholderTotalPublished(t *testing.T) {
	testPlaceholderTotal(t, func(f *Fleet, rank uint32, l Load) {
		f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: rank}, FromLoadEvent, l)
	})
}

// testPlaceholderTotal reports the loads of all cases by polls or events, which always have
// the blocks in use as well.
func testPlaceholderTotal(t *testing.T, report func(f *Fleet, rank uint32, l Load)) {
	t.Helper()
	for name, c := range placeholderCases {
		t.Run(name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			ranksOf(f, c.card)
			for i, l := range c.ranks {
				if !l.KVActive.OK {
					l.KVActive = Some(uint64(math.Round(l.CacheUsage.V * float64(l.KVTotal.V))))
				}
				report(f, uint32(i), l)
			}
			c.check(t, f)
		})
	}
}

// TestLoadPlaceholderTotalBesidePublishedBlocks checks a scraped placeholder total together
// with the published blocks of 0.8 to 1.6.
func TestLoadPlaceholderTotalBesidePublishedBlocks(t *testing.T) {
	for _, c := range []struct {
		published uint64
		usage     float64
	}{{5000, 0}, {5000, 0.37}, {0, 0.37}, {1, 0.0001}} {
		f := newFleet(everything, largeLimit)
		ranksOf(f, Card{}, Load{KVTotal: Some[uint64](1), CacheUsage: Some(c.usage)})
		f.RecordLoad(Origin{Endpoint: generate, Worker: 1}, FromActiveLoad, Load{KVActive: Some(c.published)})
		testutil.Equal(t, "load", onlyWorker(t, f).Load.V, Load{KVActive: Some(c.published), CacheUsage: Some(c.usage)})
	}
}

// TestLoadIgnoresMetricsOfRouters checks that a router's metrics are not used, even if it has
// another endpoint, unless it has a model card.
func TestLoadIgnoresMetricsOfRouters(t *testing.T) {
	f := newFleet(everything, largeLimit)
	target := ranksOf(f, Card{Model: "m"}, Load{CacheUsage: Some(0.5)})
	routing := Instance{Endpoint: Endpoint{Component: "backend", Name: "router-discovery"}, ID: 2}
	f.Register(keyOf(routing), routing, Registration{Role: RouterRole})
	beside := Instance{Endpoint: Endpoint{Component: "backend", Name: "other"}, ID: 2}
	f.Register(keyOf(beside), beside, Registration{})
	testutil.Equal(t, "scrape targets", f.ScrapeTargets(false), []ScrapeTarget{target})
	for _, in := range []Instance{routing, beside} {
		f.RecordScrape(ScrapeTarget{Instance: in}, []ScrapedValues{{Load: Load{CacheUsage: Some(0.9)}}})
	}
	testutil.Equal(t, "cache usage", onlyWorker(t, f).Load.V.CacheUsage, Some(0.5))
	f.SetCard(keyOf(beside), beside, Card{Model: "m"}) // a frontend that is also a worker
	testutil.Equal(t, "scrape targets", len(f.ScrapeTargets(false)), 2)
}

// TestLoadFractionsAreChecked checks fractions that are polled, published or scraped.
func TestLoadFractionsAreChecked(t *testing.T) {
	share := Some[float64]
	for _, c := range []struct {
		reported float64
		want     Opt[float64]
		wrong    uint64
	}{
		{0, share(0), 0}, {0.5, share(0.5), 0}, {1, share(1), 0},
		{1.0000001, share(1), 0}, {1.1, share(1), 0},
		{1.2, Opt[float64]{}, 1}, {62, Opt[float64]{}, 1}, {-0.1, Opt[float64]{}, 1}, {math.Inf(1), Opt[float64]{}, 1}, {math.MaxFloat64, Opt[float64]{}, 1},
		{math.NaN(), Opt[float64]{}, 0}, {-1, Opt[float64]{}, 0}, // unknown values
	} {
		for _, hits := range []bool{false, true} {
			reported, want := Load{Waiting: Some[uint64](3)}, Load{Waiting: Some[uint64](3)}
			if hits {
				reported.HitRate, want.HitRate = share(c.reported), c.want
			} else {
				reported.CacheUsage, want.CacheUsage = share(c.reported), c.want
			}
			origin := Origin{Endpoint: generate, Worker: 1}
			for _, source := range []struct {
				kind   stats.Kind
				record func(f *Fleet)
			}{
				{stats.StatsReply, func(f *Fleet) {
					f.RecordPollReply(PollReply{Endpoint: generate, Worker: lease(1), Outcome: Reported, Load: reported})
				}},
				{stats.LoadEvent, func(f *Fleet) { f.RecordLoad(origin, FromLoadEvent, reported) }},
				{stats.WorkerMetrics, func(f *Fleet) { ranksOf(f, Card{}, reported) }},
			} {
				f := newFleet(everything, largeLimit)
				ranksOf(f, Card{})
				source.record(f)
				testutil.Equal(t, "load", onlyWorker(t, f).Load.V, want)
				testutil.Equal(t, "counted", f.Stats.Rejected(source.kind, stats.OutOfRange), c.wrong)
			}
		}
	}
}

// TestLoadCacheUsageHasOneDefinition checks that the usage is what the worker reports, and that
// it is computed from the blocks of a worker that does not report it.
func TestLoadCacheUsageHasOneDefinition(t *testing.T) {
	n, share := Some[uint64], Some[float64]
	blocks := Load{KVActive: n(250), KVTotal: n(1000)}
	both := Load{KVActive: n(250), KVTotal: n(1000), CacheUsage: share(0.4)}
	for _, c := range []struct {
		source   Source
		reported Load
		want     float64
	}{
		{FromStats, blocks, 0.25}, {FromStats, both, 0.4}, {FromLoadEvent, blocks, 0.25}, {FromLoadEvent, both, 0.4},
		{FromStats, Load{KVActive: n(1005), KVTotal: n(1000)}, 1}, {FromLoadEvent, Load{KVActive: n(1500), KVTotal: n(1000)}, 1},
	} {
		f := newFleet(everything, largeLimit)
		ranksOf(f, Card{})
		if c.source == FromStats {
			f.RecordPollReply(PollReply{Endpoint: generate, Worker: lease(1), Outcome: Reported, Load: c.reported})
		} else {
			f.RecordLoad(Origin{Endpoint: generate, Worker: 1}, c.source, c.reported)
		}
		testutil.Equal(t, "cache usage", onlyWorker(t, f).Load.V.CacheUsage, share(c.want))
	}
	f := newFleet(everything, largeLimit) // published blocks replace a scraped usage
	ranksOf(f, Card{KVTotal: n(1000)}, Load{CacheUsage: share(0.4)})
	f.RecordLoad(Origin{Endpoint: generate, Worker: 1}, FromActiveLoad, Load{KVActive: n(250)})
	testutil.Equal(t, "cache usage", onlyWorker(t, f).Load.V.CacheUsage, share(0.25))
}

func TestLoadQueuesOfRanksAreAdded(t *testing.T) {
	n := Some[uint64]
	f := newFleet(everything, largeLimit)
	target := ranksOf(f, Card{})
	waits := Load{Waiting: n(1)}
	f.RecordScrape(target, []ScrapedValues{{Load: waits, Queues: Queues{Prealloc: n(7), Transfer: n(3)}}, {Rank: 1, Load: waits, Queues: Queues{Prealloc: n(1)}}})
	testutil.Equal(t, "queues", onlyWorker(t, f).Queues, Queues{Prealloc: n(8), Transfer: n(3)})
	f.RecordScrape(target, []ScrapedValues{{Load: waits}})
	testutil.Equal(t, "queues", onlyWorker(t, f).Queues, Queues{})
}

func TestSourceNamesAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range []Source{FromStats, FromLoadEvent, FromActiveLoad, FromPass, FromScrape} {
		if s.String() == "" || seen[s.String()] {
			t.Errorf("name %q is empty, or used twice", s)
		}
		seen[s.String()] = true
	}
}
