package stats

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestEveryCounterCountsForItself(t *testing.T) {
	var tally Tally
	for i, k := range Kinds() {
		for range i + 1 {
			tally.Receive(k)
		}
		for j, r := range Reasons() {
			for range 10*i + j {
				tally.Reject(k, r)
			}
		}
	}
	for i, d := range Drops() {
		tally.Drop(d, uint64(7+i))
		tally.Drop(d, 100)
	}
	for i, r := range ScrapeResults() {
		for range i + 1 {
			tally.Scraped(r)
		}
		testutil.Equal(t, r.String(), tally.Scrapes(r), uint64(i+1))
	}
	for i, why := range PageTroubles() {
		for range 40 + i {
			tally.ScrapeFailed(why)
		}
		testutil.Equal(t, why.String(), tally.FailedScrapes(why), uint64(40+i))
	}
	testutil.Equal(t, "all that failed", tally.Scrapes(ScrapeError), uint64(3+40+41+42+43+44))
	for i, p := range Peers() {
		for range 20 + i {
			tally.Fail(p)
		}
		testutil.Equal(t, p.String(), tally.Failed(p), uint64(20+i))
	}
	for i, l := range Limits() {
		for range 30 + i {
			tally.TurnAway(l)
		}
		testutil.Equal(t, l.String(), tally.TurnedAway(l), uint64(30+i))
	}
	testutil.Equal(t, "over all limits", tally.OverLimit(), uint64(30+31+32+33+34+35))
	for i, k := range Kinds() {
		testutil.Equal(t, k.String(), tally.Messages(k), uint64(i+1))
		for j, r := range Reasons() {
			testutil.Equal(t, k.String()+" "+r.String(), tally.Rejected(k, r), uint64(10*i+j))
		}
	}
	for i, d := range Drops() {
		testutil.Equal(t, d.String(), tally.Dropped(d), uint64(107+i))
	}
}

func TestEveryValueHasANameOfItsOwn(t *testing.T) {
	unique := func(names ...fmt.Stringer) {
		t.Helper()
		seen := make(map[string]bool)
		for _, n := range names {
			if n.String() == "" || seen[n.String()] {
				t.Errorf("name %q is empty, or stands for two", n)
			}
			seen[n.String()] = true
		}
	}
	unique(StatsReply, HitRate, LoadEvent, ForwardPass, Trace, Instances, Cards, Channels, Pages, Others)
	unique(BadJSON, BadName, BadID, BadLoad, BadPack, BadFrames, NoWorker, Estimate, Repeated, BadText, TooLarge, NotRegistered, Late, UnknownKind, OutOfRange)
	unique(QueueFull, OverMaxBytes)
	unique(PollOK, PollEmpty, PollError)
	unique(ScrapeOK, ScrapeEmpty, ScrapeError)
	unique(PageTooSlow, PageOutOfReach, PageUntrusted, PageStatus, PageUnreadable)
	unique(PeerNATS, PeerEtcd, PeerKubernetes, PeerFiles, PeerZMQ, PeerWorkerPage, PeerPushgateway)
	unique(WorkerLimit, EndpointLimit, AttachmentLimit, RankLimit, ChannelLimit, SubscriptionLimit)
	testutil.Equal(t, "values", []int{len(Kinds()), len(Reasons()), len(Drops()), len(PollResults()), len(ScrapeResults()), len(PageTroubles()), len(Peers()), len(Limits())}, []int{10, 15, 2, 3, 3, 5, 7, 6})
}

func TestPollsAreCountedByResultAndTimedWhenTheyWereDone(t *testing.T) {
	var tally Tally
	tally.Init()
	testutil.Equal(t, "has polled", tally.HasPolled(), false)
	tally.Polled(PollError, time.Hour)
	testutil.Equal(t, "has polled, with an error", tally.HasPolled(), false)
	tally.Polled(PollEmpty, time.Second) // on a bound: le means up to and with it
	testutil.Equal(t, "has polled", tally.HasPolled(), true)
	tally.Polled(PollOK, 2*time.Millisecond)
	tally.Polled(PollOK, 3*time.Second)
	testutil.Equal(t, "ok", tally.Polls(PollOK), uint64(2))
	testutil.Equal(t, "empty", tally.Polls(PollEmpty), uint64(1))
	testutil.Equal(t, "error", tally.Polls(PollError), uint64(1))
	durations := tally.PollDurations()
	testutil.Equal(t, "durations", durations.Count, 3)
	testutil.Equal(t, "seconds", durations.Sum, 4.002)
	//                                                 1ms 2.5 5  10 25 50 100 250 500 1s 2.5
	testutil.Equal(t, "buckets", durations.Counts, []uint64{0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0})
}
