package monitor

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// workerHistory is everything that the history of a row has.
type workerHistory struct {
	Key                         string
	Step                        int
	End                         int64
	Note                        string
	KV, Slots, Waiting, HitRate []*float64
	PeersKV                     struct{ Mean, Std []*float64 }
	Odd                         []struct{ Text, Check string }
}

func (l *harness) history(key string) (h workerHistory) {
	l.t.Helper()
	w := l.request("GET", "/worker?key="+key)
	if w.Code != 200 {
		l.t.Fatalf("history of %s: %d %s", key, w.Code, w.Body)
	}
	decode(l.t, w.Body.Bytes(), &h)
	return h
}

// odd are the texts of what is odd about a row.
func (l *harness) anomalies(key string) (all []string) {
	l.t.Helper()
	for _, o := range l.history(key).Odd {
		if o.Check == "" {
			l.t.Errorf("%q has no advice", o.Text)
		}
		all = append(all, o.Text)
	}
	return all
}

// line writes samples as people would.
func formatSamples(samples []*float64) string {
	var all []string
	for _, v := range samples {
		all = append(all, formatOptional(v))
	}
	return strings.Join(all, " ")
}

func TestHistoryHasOneSamplePerStep(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1, 2)
		for _, answers := range [][]fleet.PollReply{
			{pollReply(generate, 1, 200, 0), pollReply(generate, 2, 400, 5)},
			{pollReply(generate, 1, 300, 0), malformedReply(generate, 2)},
			{pollReply(generate, 1, 124, 7), pollReply(generate, 2, 456, 70_000)},
		} {
			l.setReplies(answers...)
			l.ticks(5 * time.Second)
		}
		h := l.snapshot().History
		testutil.Equal(t, "step", h.Step, 5)
		testutil.Equal(t, "end", h.End, time.Now().UnixMilli())
		testutil.Equal(t, "mean load", formatSamples(h.LoadMean), "– 0.3 0.3 0.29")
		testutil.Equal(t, "std of it", formatSamples(h.LoadStd), "– 0.1 0 0.166")
		testutil.Equal(t, "waiting", formatSamples(h.Waiting), "– 5 0 70007")
		testutil.Equal(t, "answering", formatSamples(h.Answering), "0 2 1 2")
		testutil.Equal(t, "malformed", formatSamples(h.Malformed), "0 0 1 0")
		two := l.history("2")
		testutil.Equal(t, "KV use", formatSamples(two.KV), "– 0.4 – 0.456")
		testutil.Equal(t, "waiting", formatSamples(two.Waiting), "– 5 – 65534")
		testutil.Equal(t, "hit rate", formatSamples(two.HitRate), "– – – –")
		testutil.Equal(t, "peers", formatSamples(two.PeersKV.Mean), "– 0.3 0.3 0.29")
		testutil.Equal(t, "spread of the peers", formatSamples(two.PeersKV.Std), "– 0.1 0 0.166")
	})
}

func TestHistoryKeepsFifteenMinutes(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1)
		for n := range 400 {
			l.setReplies(pollReply(generate, 1, uint64(n), 0))
			l.ticks(5 * time.Second)
		}
		h, own := l.snapshot().History, l.history("1")
		testutil.Equal(t, "samples", []int{len(h.LoadMean), len(h.Malformed), len(own.KV), len(own.PeersKV.Std)}, []int{180, 180, 180, 180})
		testutil.Equal(t, "the oldest and the newest", []string{formatOptional(own.KV[0]), formatOptional(own.KV[179])}, []string{"0.22", "0.4"})
	})
}

func TestHistoryHasGapsForMissedSteps(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1)
		l.setReplies(pollReply(generate, 1, 500, 0))
		l.ticks(5 * time.Second)
		time.Sleep(17 * time.Second) // the process was stopped
		l.ticks(4 * time.Second)
		testutil.Equal(t, "mean load", formatSamples(l.snapshot().History.LoadMean), "– 0.5 – – 0.5 0.5")
		testutil.Equal(t, "answering", formatSamples(l.snapshot().History.Answering), "0 1 – – 1 1")
		testutil.Equal(t, "KV use", formatSamples(l.history("1").KV), "– 0.5 – – 0.5 0.5")
		time.Sleep(time.Hour)
		l.tick()
		testutil.Equal(t, "samples that are left of what was an hour ago", formatSamples(slices.DeleteFunc(l.history("1").KV, func(v *float64) bool { return v == nil })), "0.5")
	})
}

func TestHistoryOfRemovedWorkerIsFreed(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1, 2)
		l.setReplies(pollReply(generate, 1, 500, 0), pollReply(generate, 2, 500, 0))
		l.ticks(time.Minute)
		with := l.fleet.Stats.HistoryBytes.Load()
		l.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 2})
		l.setReplies(pollReply(generate, 1, 500, 0))
		l.ticks(time.Minute)
		testutil.Equal(t, "error", l.requestError("GET", "/worker?key=2", 404), `there is no worker with the key "2"`)
		rings := int64(2*unsafe.Sizeof(compactHistory[uint8]{}) + unsafe.Sizeof(compactHistory[uint16]{})) // it had no hit rate
		if freed := with - l.fleet.Stats.HistoryBytes.Load(); freed < rings || freed > rings+1000 {
			t.Errorf("%d bytes are free, want %d of the rings and what is known beside", freed, rings)
		}
		l.registerPolled(generate, 2)
		l.setReplies(pollReply(generate, 1, 500, 0), pollReply(generate, 2, 500, 0))
		l.ticks(5 * time.Second)
		testutil.Equal(t, "samples when it is back", formatSamples(l.history("2").KV[len(l.history("2").KV)-2:]), "– 0.5")
	})
}

func TestHistoryNotesWorkersWithoutHistory(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.monitor.options.Limit = 2
		l.registerPolled(generate, 1, 2, 3)
		l.setReplies(pollReply(generate, 1, 100, 0), pollReply(generate, 2, 200, 0), pollReply(generate, 3, 300, 0))
		l.ticks(10 * time.Second)
		testutil.Equal(t, "rows with a history", l.monitor.rowsWithHistory, 2)
		three := l.history("3")
		testutil.Equal(t, "note", three.Note, "No history is kept of this worker: there is room for that of 2.")
		testutil.Equal(t, "KV use", formatSamples(three.KV), "– – –")
		testutil.Equal(t, "note of another", l.history("1").Note, "")
		l.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
		l.setReplies(pollReply(generate, 2, 200, 0), pollReply(generate, 3, 300, 0))
		l.ticks(10 * time.Second)
		testutil.Equal(t, "when there is room", formatSamples(l.history("3").KV), "– – – 0.3 0.3")
		testutil.Equal(t, "note", l.history("3").Note, "")
	})
}

// TestHistoryRowsAreBounded, whatever --max-workers is.
func TestHistoryRowsAreBounded(t *testing.T) {
	const most = 100_000
	inBubbleWithLimit(t, most, func(l *harness) {
		t := l.t
		l.monitor.options.Limit = most
		ids := make([]uint64, 65_540)
		for i := range ids {
			ids[i] = uint64(1 + i)
		}
		l.registerPublishing(generate, ids...)
		for _, id := range ids {
			l.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: id}, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
		}
		l.ticks(5 * time.Second)
		testutil.Equal(t, "rows with a history", l.monitor.rowsWithHistory, 65_536)
	})
}

// TestHistoryMemoryMatchesDocs in memory, of each worker at most.
func TestHistoryMemoryMatchesDocs(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		const workers = 1000
		var ids []uint64
		for id := range uint64(workers) {
			ids = append(ids, id+1)
		}
		before := l.fleet.Stats.HistoryBytes.Load()
		l.registerPublishing(generate, ids...)
		for _, id := range ids {
			from := fleet.Origin{Endpoint: generate, Worker: id}
			l.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
			l.fleet.RecordForwardPass(from, fleet.Pass{Counter: 1, Running: 1})
			l.fleet.RecordHit(id, 10, 5)
		}
		l.ticks(10 * time.Second)
		if each := (l.fleet.Stats.HistoryBytes.Load() - before) / workers; each < 1024 || each > 1638 {
			t.Errorf("%d bytes a worker, want no more than 1.6 kB", each)
		}
	})
}

func TestRowKeysAreUnique(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		keys := func(want ...string) {
			t.Helper()
			l.tick()
			var got []string
			for _, w := range l.snapshot().Workers {
				got = append(got, w.Component+" "+w.Key)
			}
			testutil.Equal(t, "rows", got, want)
		}
		l.registerPolled(generate, 7, 8)
		l.registerPolled(prefill, 7)
		l.setReplies(pollReply(generate, 7, 1, 0), pollReply(prefill, 7, 1, 0), pollReply(generate, 8, 1, 0))
		keys("backend 7", "backend 8", "prefill 7@prefill/generate")
		l.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 7})
		l.setReplies(pollReply(prefill, 7, 1, 0), pollReply(generate, 8, 1, 0))
		keys("backend 8", "prefill 7@prefill/generate") // as long as it is there
		l.registerPublishing(prefill, 9)
		for rank := range uint32(2) {
			l.fleet.RecordLoad(fleet.Origin{Endpoint: prefill, Worker: 9, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		}
		keys("backend 8", "prefill 7@prefill/generate", "prefill 9/0", "prefill 9/1")
		testutil.Equal(t, "workers, however many ranks", l.snapshot().Fleet.States.Answering, 3)
		testutil.Equal(t, "gone", len(l.monitor.byEndpoint[prefill].departures), 0)
		l.fleet.Deregister("", fleet.Instance{Endpoint: prefill, ID: 7})
		l.setReplies(pollReply(generate, 8, 1, 0))
		l.ticks(3 * time.Second)
		l.registerPolled(generate, 7)
		l.setReplies(pollReply(generate, 7, 1, 0), pollReply(generate, 8, 1, 0))
		keys("backend 7", "backend 8", "prefill 9/0", "prefill 9/1")
	})
}

func TestHitRateIgnoresHitsBeforeRegistration(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.fleet.RecordHit(1, 1000, 0) // of an id that nobody knows
		l.tick()
		testutil.Equal(t, "hit rate", formatOptional(l.snapshot().Fleet.HitRate), "0")
		l.ticks(6 * time.Minute)
		testutil.Equal(t, "hit rate of the last five minutes", formatOptional(l.snapshot().Fleet.HitRate), "–")
		l.registerPolled(generate, 1) // takes its counters along
		l.setReplies(pollReply(generate, 1, 1, 0))
		l.tick()
		testutil.Equal(t, "hit rate when it is known", formatOptional(l.snapshot().Fleet.HitRate), "–")
		l.fleet.RecordHit(1, 100, 100)
		l.tick()
		s := l.snapshot()
		testutil.Equal(t, "hit rate", formatOptional(s.Fleet.HitRate), "1")
		testutil.Equal(t, "since the start", formatOptional(s.Fleet.HitRateTotal), "0.0909")
		testutil.Equal(t, "its own", []string{formatOptional(s.Workers[0].HitRate), formatOptional(s.Workers[0].HitRateTotal)}, []string{"1", "0.0909"})
	})
}

func TestHitRateIgnoresHitsBeforeFirstSample(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1)
		l.fleet.RecordHit(1, 100, 50)
		l.monitor = New(options(l.fleet)) // begins in the midst of it
		l.tick()
		s := l.snapshot()
		testutil.Equal(t, "hit rates", []string{formatOptional(s.Fleet.HitRate), formatOptional(s.Fleet.HitRateTotal)}, []string{"–", "0.5"})
	})
}

func TestEventRateIsFiveSecondMean(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		for range 20 {
			for range 40 {
				l.fleet.Stats.CountMessage(stats.LoadEvent)
				l.fleet.Stats.CountMessage(stats.InstanceKeys) // no load
			}
			l.ticks(2 * time.Second)
		}
		if v := l.snapshot().Fleet.EventsPerSecond; v < 16 || v > 24 {
			t.Errorf("%v events a second, want about 20", v)
		}
	})
}

func TestAnomaliesOfWorker(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		answers := []fleet.PollReply{pollReply(generate, 1, 980, 12)}
		for id := range uint64(9) {
			answers = append(answers, pollReply(generate, 2+id, 400, 0))
		}
		l.setReplies(answers...)
		l.fleet.RecordHit(1, 100, 90)
		l.fleet.RecordHit(2, 900, 100)
		l.ticks(5 * time.Second)
		testutil.Equal(t, "of one like the others", l.anomalies("3"), nil)
		testutil.Equal(t, "of the full one", l.anomalies("1"), []string{
			"KV use 98\u00a0% is 3.0 standard deviations above its endpoint's mean of 46\u00a0%.",
			"12 requests wait here while its endpoint has 54\u00a0% of its blocks free.",
			"Hit rate 90\u00a0% against 19\u00a0% of its endpoint.",
		})
		l.setReplies(append(answers[:8:8], malformedReply(generate, 9))...)
		l.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 8})
		l.ticks(10 * time.Second)
		testutil.Equal(t, "of a silent one", l.anomalies("10"), []string{"It is registered in etcd, but its last load came 10 s ago."})
		testutil.Equal(t, "of one that cannot be read", l.anomalies("9"), []string{"It answers, but its load cannot be decoded."})
		testutil.Equal(t, "of one without a key", l.anomalies("8"), []string{"It is heard, but its registration in etcd has been gone for 9 s: no router sees it."})
		l.registerPublishing(prefill, 0x21, 0x22)
		l.fleet.RecordLoad(fleet.Origin{Endpoint: prefill, Worker: 0x21}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		l.ticks(5 * time.Second)
		testutil.Equal(t, "of one that publishes little", l.anomalies("33"), []string{"Slots and waiting are not shown: its release does not publish them, or its engine does not report them."})
		testutil.Equal(t, "of one that has published nothing", l.anomalies("34"), []string{"It is registered in etcd, but no load of its has come yet."})
	})
}
