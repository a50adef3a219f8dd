package fleet

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// expectedLoad is a simple model of a worker: the last values of each source.
type expectedLoad struct {
	transport string
	published Opt[Load]
	source    Source
	pass      Opt[Pass]
	card      Card
	scraped   Opt[Load]

	publishedAt, passedAt, scrapedAt time.Time
}

// firstOf returns the first value that is present.
func firstOf[T any](of ...Opt[T]) Opt[T] {
	for _, o := range of {
		if o.OK {
			return o
		}
	}
	return Opt[T]{}
}

// load returns the expected load. Published values come before those of forward passes, of the
// card and of scrapes.
func (o *expectedLoad) load() Opt[Load] {
	p, s := o.published.V, o.scraped.V
	l := p
	l.ActiveSlots = firstOf(p.ActiveSlots, Opt[uint64]{o.pass.V.Running, o.pass.OK}, s.ActiveSlots)
	l.Waiting = firstOf(p.Waiting, Opt[uint64]{o.pass.V.Waiting, o.pass.OK}, s.Waiting)
	l.TotalSlots = firstOf(p.TotalSlots, o.card.MaxSeqs, s.TotalSlots)
	l.KVTotal = firstOf(p.KVTotal, o.card.KVTotal, s.KVTotal)
	l.HitRate = firstOf(p.HitRate, s.HitRate)
	l.KVActive = firstOf(p.KVActive, s.KVActive)
	if !l.KVActive.OK && s.CacheUsage.OK && l.KVTotal.OK {
		l.KVActive = Some(uint64(math.Round(s.CacheUsage.V * float64(l.KVTotal.V))))
	}
	var share Opt[float64]
	if part := float64(l.KVActive.V) / float64(l.KVTotal.V); l.KVActive.OK && l.KVTotal.V > 0 {
		share = Some(min(part, 1))
	}
	if p.KVActive.OK && o.source == FromActiveLoad {
		l.CacheUsage = firstOf(share, s.CacheUsage)
	} else {
		l.CacheUsage = firstOf(p.CacheUsage, s.CacheUsage, share)
	}
	return Opt[Load]{l, o.published.OK || o.pass.OK || o.scraped.OK}
}

// from returns the source of the blocks in use, and when they were received.
func (o *expectedLoad) from() (Source, time.Time) {
	switch {
	case o.published.V.KVActive.OK:
		return o.source, o.publishedAt
	case o.scraped.OK && o.load().V.KVActive.OK:
		return FromScrape, o.scrapedAt
	case o.published.OK:
		return o.source, o.publishedAt
	case o.pass.OK:
		return FromPass, o.passedAt
	}
	return FromScrape, o.scrapedAt
}

// TestScrapeRandomYieldsToOtherSources compares random changes of workers with the model.
func TestScrapeRandomYieldsToOtherSources(t *testing.T) {
	for seed := range uint64(10) {
		h := &loadHistory{
			rand: rand.New(rand.NewPCG(seed, 7)), f: newFleet(everything, largeLimit), now: start,
			expected: make(map[uint64]*expectedLoad),
		}
		for range 2000 {
			id := 1 + h.rand.Uint64N(5)
			h.expected[id] = h.change(id, h.expected[id])
			checkInvariants(t, h.f)
			h.compare(t)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// loadHistory makes random changes of workers, and has the model of their effects.
type loadHistory struct {
	rand     *rand.Rand
	f        *Fleet
	now      time.Time
	expected map[uint64]*expectedLoad
}

func (h *loadHistory) number() Opt[uint64] {
	if h.rand.IntN(3) == 0 {
		return Opt[uint64]{}
	}
	return Some(2 + h.rand.Uint64N(1000)) // a total of 1 is a placeholder: see placeholderCases
}

func (h *loadHistory) fraction() Opt[float64] {
	if h.rand.IntN(3) == 0 {
		return Opt[float64]{}
	}
	return Some(h.rand.Float64())
}

func (h *loadHistory) load() Load {
	return Load{
		ActiveSlots: h.number(), TotalSlots: h.number(), Waiting: h.number(), KVActive: h.number(), KVTotal: h.number(),
		CacheUsage: h.fraction(), HitRate: h.fraction(),
	}
}

// change makes one random change of a worker with the model o, and returns its new model. Nil
// stands for a worker that is not registered.
func (h *loadHistory) change(id uint64, o *expectedLoad) *expectedLoad {
	f, in, at := h.f, Instance{Endpoint: generate, ID: id}, Origin{Endpoint: generate, Worker: id}
	what := h.rand.IntN(16)
	switch {
	case o == nil || what == 0: // it registers, or another process takes over
		o = &expectedLoad{transport: time.Duration(h.rand.Uint32()).String()}
		f.DropCard(keyOf(in), in)
		f.Register(keyOf(in), in, Registration{Publishes: true, Transport: o.transport})
	case what == 1:
		f.Deregister(keyOf(in), in)
		f.DropCard(keyOf(in), in)
		return nil
	case what == 2:
		o.card = Card{KVTotal: h.number(), MaxSeqs: h.number()}
		f.SetCard(keyOf(in), in, o.card)
	case what == 3:
		o.published, o.source, o.publishedAt = Some(Load{KVActive: Some(h.rand.Uint64N(1000))}), FromActiveLoad, h.now
		f.RecordLoad(at, o.source, o.published.V)
	case what == 4:
		o.published, o.source, o.publishedAt = Some(h.load()), FromLoadEvent, h.now
		f.RecordLoad(at, o.source, o.published.V)
	case what == 5:
		o.pass, o.passedAt = Some(Pass{Running: h.rand.Uint64N(100), Waiting: h.rand.Uint64N(100)}), h.now
		f.RecordForwardPass(at, o.pass.V)
	case what == 6: // of a former process
		f.RecordScrape(ScrapeTarget{Instance: in, Transport: "another"}, []ScrapedValues{unnamed(h.load())})
	case what < 11:
		h.expire()
	default:
		l := h.load()
		o.scraped, o.scrapedAt = Opt[Load]{l, l != Load{}}, h.now
		f.RecordScrape(ScrapeTarget{Instance: in, Transport: o.transport}, []ScrapedValues{{Endpoint: []Endpoint{generate, {}}[h.rand.IntN(2)], Load: l}})
	}
	return o
}

// expire advances the clock and expires scraped values.
func (h *loadHistory) expire() {
	h.now = h.now.Add(time.Duration(h.rand.IntN(5)) * time.Second)
	h.f.Advance(h.now)
	h.f.ExpireScraped(10 * time.Second)
	for _, o := range h.expected {
		if o != nil && h.now.Sub(o.scrapedAt) > 10*time.Second {
			o.scraped = Opt[Load]{}
		}
	}
}

// compare compares a Snapshot with the model.
func (h *loadHistory) compare(t *testing.T) {
	t.Helper()
	shown := make(map[uint64]WorkerState)
	for _, w := range h.f.Snapshot().Workers {
		shown[w.ID.Lease] = w
	}
	for id, o := range h.expected {
		w, found := shown[id]
		if found != (o != nil) {
			t.Errorf("worker %d is shown: %v", id, found)
		}
		if o == nil {
			continue
		}
		if want := o.load(); w.Load.OK != want.OK || want.OK && w.Load != want {
			testutil.Equal(t, "load", w.Load, want)
		}
		if !w.Load.OK {
			continue
		}
		if source, at := o.from(); w.Source != source || w.LoadAge != h.now.Sub(at) {
			t.Errorf("worker %d: source %s, age %s, want %s, %s", id, w.Source, w.LoadAge, source, h.now.Sub(at))
		}
	}
}
