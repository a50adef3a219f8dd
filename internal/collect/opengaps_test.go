package collect

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// gapTest counts the gaps of one stream, at times that the test sets.
type gapTest struct {
	t   *testing.T
	e   *Events
	seq sequence
	key gapKey
}

func newGapTest(t *testing.T) *gapTest {
	c := &gapTest{t: t, e: NewEvents(fleet.New(fleet.Target{}, 10, true), "dynamo", slog.New(slog.DiscardHandler))}
	c.key = gapKey{&c.seq, stream{publisher: 7, kind: stats.HitRate}}
	return c
}

func (c *gapTest) record(numbers ...uint64) {
	for _, n := range numbers {
		c.e.detectGap(c.key, n)
	}
}

func (c *gapTest) recordRun(from, to uint64) {
	for ; from <= to; from++ {
		c.record(from)
	}
}

// check compares how many events are missing, and how many may still arrive.
func (c *gapTest) check(want, open uint64) {
	c.t.Helper()
	left := uint64(0)
	for at := c.e.openGaps.byAge.Front(); at != nil; at = at.Next() {
		o := at.Value.(*openGap)
		left += o.to - o.from + 1
	}
	if n := c.e.fleet.Stats.MissedEvents.Load(); n != want || left != open {
		c.t.Errorf("%d are missing and %d may still arrive, want %d and %d", n, left, want, open)
	}
	if n := c.e.openGaps.count.Load(); int(n) != c.e.openGaps.byAge.Len() || (n == 0) != (len(c.e.openGaps.byStream) == 0) {
		c.t.Errorf("%d gaps are open, of %d streams, and %d are queued to close", n, len(c.e.openGaps.byStream), c.e.openGaps.byAge.Len())
	}
}

func (c *gapTest) expireAfter(d time.Duration) { c.e.openGaps.expire(time.Now().Add(d)) }

// TestOpenGapsOutOfOrderNotMissing records events out of order, as routers of 0.9 and 1.0 send
// them.
func TestOpenGapsOutOfOrderNotMissing(t *testing.T) {
	c := newGapTest(t)
	c.record(17, 19, 20, 18, 21)
	c.check(0, 0)
	c.record(30)
	c.check(0, 8)
	c.record(25, 22, 29, 28, 23, 24)
	c.check(0, 2)
	c.record(26, 27, 31)
	c.check(0, 0)
	c.expireAfter(time.Hour)
	c.check(0, 0)
	c.record(33)
	c.expireAfter(gapTimeout - time.Millisecond)
	c.check(0, 1)
	c.expireAfter(gapTimeout)
	c.check(1, 0)
}

func TestOpenGapsWindowIs256Numbers(t *testing.T) {
	c := newGapTest(t)
	c.record(10, 14)
	c.recordRun(15, 13+255)
	c.check(0, 3)
	c.record(12)
	c.check(0, 2)
	c.recordRun(13+256, 13+256)
	c.check(2, 0)
	if got := c.e.fleet.Diagnostics.Gaps(); len(got) != 2 || got[0].After != 10 || got[0].Before != 12 || got[1].After != 12 || got[1].Before != 14 {
		t.Errorf("gaps %+v, want 11 and 13", got)
	}
}

func TestOpenGapsDiscardCountsNothing(t *testing.T) {
	c := newGapTest(t)
	c.record(10, 14)
	c.check(0, 3)
	c.e.openGaps.discard(&c.seq)
	c.check(0, 0)
	c.expireAfter(time.Hour)
	c.check(0, 0)
}

func TestOpenGapsKeepStreamsApart(t *testing.T) {
	c, other := newGapTest(t), newGapTest(t)
	other.e = c.e
	c.record(10, 14)
	other.record(10, 14, 11, 12, 13)
	c.check(0, 3)
	c.e.openGaps.discard(&other.seq)
	c.check(0, 3)
}

// TestOpenGapsAreBounded checks that gaps beyond the limits count as missing at once.
func TestOpenGapsAreBounded(t *testing.T) {
	c := newGapTest(t)
	for n := range uint64(300) {
		c.record(10 + n*100_000) // too far ahead to close a window
	}
	if n := c.e.openGaps.byAge.Len(); n != 256 {
		t.Errorf("%d gaps of one stream are open, want 256", n)
	}
	if n := c.e.fleet.Stats.MissedEvents.Load(); n != 43*99_999 {
		t.Errorf("%d are missing, want those of the first 43 gaps", n)
	}
	for publisher := range uint64(70_000) {
		key := gapKey{&sequence{}, stream{publisher: publisher, kind: stats.HitRate}}
		c.e.detectGap(key, 1)
		c.e.detectGap(key, 3)
	}
	if n, all := c.e.openGaps.byAge.Len(), len(c.e.openGaps.byStream); n != 65_536 || all != 65_536 {
		t.Errorf("%d gaps of %d streams are open, want 65,536", n, all)
	}
}

// TestOpenGapsShuffledCountsOnlyLost shuffles events and loses some. Exactly the lost ones count
// as missing.
func TestOpenGapsShuffledCountsOnlyLost(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 13))
		c, lost := newGapTest(t), uint64(0)
		c.record(0)
		var ahead []uint64
		for n := uint64(1); n < 3000 || len(ahead) > 0; {
			if n < 3000 && (len(ahead) == 0 || len(ahead) < 100 && r.IntN(2) == 0) {
				if r.IntN(50) == 0 && n > 1 && n < 2999 {
					lost++
				} else {
					ahead = append(ahead, n)
				}
				n++
				continue
			}
			i := r.IntN(min(len(ahead), 20))
			c.record(ahead[i])
			ahead = append(ahead[:i], ahead[i+1:]...)
		}
		c.expireAfter(gapTimeout)
		if got := c.e.fleet.Stats.MissedEvents.Load(); got != lost {
			t.Errorf("seed %d: %s", seed, fmt.Sprintf("%d are missing, want %d", got, lost))
		}
	}
}

// TestEventsIgnoreLateLoad checks that an older load of a rank does not replace a newer one.
func TestEventsIgnoreLateLoad(t *testing.T) {
	c := newGapTest(t)
	at := fleet.Endpoint{Component: "backend", Name: "generate"}
	f := c.e.fleet
	f.Sync(fleet.Listing{Instances: map[string]fleet.InstanceEntry{"1": {Instance: fleet.Instance{Endpoint: at, ID: 1}, Registration: fleet.Registration{Publishes: true}}}})
	sendLoad := func(number uint64, rank, blocks byte) {
		payload := append([]byte("\x83\xa9worker_id\x01\xa7dp_rank"), rank)
		payload = append(append(payload, "\xaekv_used_blocks"...), blocks)
		c.e.handleEnvelope(at, wire.TopicLoad, wire.Envelope{
			Topic: []byte(wire.TopicLoad), Publisher: 7, Sequence: number, PublishedAt: 1000 + number, Payload: payload,
		}, &c.seq, nil)
	}
	checkBlocks := func(want ...uint64) {
		t.Helper()
		var got []uint64
		for _, r := range f.Snapshot().Workers[0].Ranks {
			got = append(got, r.Load.KVActive.V)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the ranks have %v blocks in use, want %v", got, want)
		}
	}
	sendLoad(16, 1, 61)
	sendLoad(17, 0, 17)
	sendLoad(19, 0, 19)
	sendLoad(18, 0, 18) // out of order
	checkBlocks(19, 61)
	if n := f.Stats.Rejected(stats.LoadEvent, stats.Repeated); n != 1 {
		t.Errorf("%d loads are rejected, want 1", n)
	}
	sendLoad(21, 0, 21)
	sendLoad(20, 1, 62) // out of order, but the newest of its rank
	checkBlocks(21, 62)
}
