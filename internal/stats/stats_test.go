package stats

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestStatsCountersAreIndependent(t *testing.T) {
	var stats Stats
	for i, k := range Kinds() {
		for range i + 1 {
			stats.CountMessage(k)
		}
		for j, r := range Reasons() {
			for range 10*i + j {
				stats.CountRejected(k, r)
			}
		}
	}
	for i, d := range Drops() {
		stats.AddDropped(d, uint64(7+i))
		stats.AddDropped(d, 100)
	}
	for i, r := range ScrapeResults() {
		for range i + 1 {
			stats.CountScrape(r)
		}
		testutil.Equal(t, r.String(), stats.Scrapes(r), uint64(i+1))
	}
	for i, why := range ScrapeFailures() {
		for range 40 + i {
			stats.CountScrapeFailure(why)
		}
		testutil.Equal(t, why.String(), stats.ScrapeFailures(why), uint64(40+i))
	}
	testutil.Equal(t, "all failed scrapes", stats.Scrapes(ScrapeError), uint64(3+40+41+42+43+44))
	for i, p := range Peers() {
		for range 20 + i {
			stats.CountFailure(p)
		}
		testutil.Equal(t, p.String(), stats.Failures(p), uint64(20+i))
	}
	for i, l := range Limits() {
		for range 30 + i {
			stats.CountRefused(l)
		}
		testutil.Equal(t, l.String(), stats.Refused(l), uint64(30+i))
	}
	testutil.Equal(t, "over all limits", stats.AllRefused(), uint64(30+31+32+33+34+35))
	for i, k := range Kinds() {
		testutil.Equal(t, k.String(), stats.Messages(k), uint64(i+1))
		for j, r := range Reasons() {
			testutil.Equal(t, k.String()+" "+r.String(), stats.Rejected(k, r), uint64(10*i+j))
		}
	}
	for i, d := range Drops() {
		testutil.Equal(t, d.String(), stats.Dropped(d), uint64(107+i))
	}
}

func TestStatsLabelValuesAreUnique(t *testing.T) {
	unique := func(names ...fmt.Stringer) {
		t.Helper()
		seen := make(map[string]bool)
		for _, n := range names {
			if n.String() == "" || seen[n.String()] {
				t.Errorf("name %q is empty, or used twice", n)
			}
			seen[n.String()] = true
		}
	}
	unique(StatsReply, HitRate, LoadEvent, ForwardPass, Trace, InstanceKeys, CardKeys, ChannelKeys, WorkerMetrics, OtherKeys)
	unique(BadJSON, BadName, BadID, BadLoad, BadMsgpack, BadFrames, NoWorker, Estimate, Repeated, BadText, TooLarge, NotRegistered, Late, UnknownKind, OutOfRange)
	unique(QueueFull, OverMaxBytes)
	unique(PollOK, PollEmpty, PollError)
	unique(ScrapeOK, ScrapeEmpty, ScrapeError)
	unique(ScrapeTimedOut, ScrapeNotConnected, ScrapeTLSFailed, ScrapeBadStatus, ScrapeUnreadable)
	unique(PeerNATS, PeerEtcd, PeerKubernetes, PeerFiles, PeerZMQ, PeerWorkerMetrics, PeerPushgateway)
	unique(WorkerLimit, EndpointLimit, AttachmentLimit, RankLimit, ChannelLimit, SubscriptionLimit)
	testutil.Equal(t, "values", []int{len(Kinds()), len(Reasons()), len(Drops()), len(PollResults()), len(ScrapeResults()), len(ScrapeFailures()), len(Peers()), len(Limits())}, []int{10, 15, 2, 3, 3, 5, 7, 6})
}

func TestStatsPollsByResultAndDuration(t *testing.T) {
	var stats Stats
	stats.Init()
	testutil.Equal(t, "has polled", stats.HasPolled(), false)
	stats.RecordPoll(PollError, time.Hour)
	testutil.Equal(t, "has polled, with an error", stats.HasPolled(), false)
	stats.RecordPoll(PollEmpty, time.Second) // equal to a bound, which le includes
	testutil.Equal(t, "has polled", stats.HasPolled(), true)
	stats.RecordPoll(PollOK, 2*time.Millisecond)
	stats.RecordPoll(PollOK, 3*time.Second)
	testutil.Equal(t, "ok", stats.Polls(PollOK), uint64(2))
	testutil.Equal(t, "empty", stats.Polls(PollEmpty), uint64(1))
	testutil.Equal(t, "error", stats.Polls(PollError), uint64(1))
	durations := stats.PollDurations()
	testutil.Equal(t, "durations", durations.Count, 3)
	testutil.Equal(t, "seconds", durations.Sum, 4.002)
	//                                                 1ms 2.5 5  10 25 50 100 250 500 1s 2.5
	testutil.Equal(t, "buckets", durations.Counts, []uint64{0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0})
}
