package monitor

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// workerHistory has every field of the history of a row.
type workerHistory struct {
	Key                         string
	Step                        int
	End                         int64
	Note                        string
	KV, Slots, Waiting, HitRate []*float64
	PeersKV                     struct{ Mean, Std []*float64 }
	Odd                         []struct{ Text, Check string }
}

func (h *harness) history(key string) (history workerHistory) {
	h.t.Helper()
	monitortest.Decode(h.t, h.worker(key), &history)
	return history
}

// anomalies returns the texts of a row's anomalies.
func (h *harness) anomalies(key string) (all []string) {
	h.t.Helper()
	for _, o := range h.history(key).Odd {
		if o.Check == "" {
			h.t.Errorf("%q has no advice", o.Text)
		}
		all = append(all, o.Text)
	}
	return all
}

// formatSamples formats samples for comparisons.
func formatSamples(samples []*float64) string {
	var all []string
	for _, v := range samples {
		all = append(all, monitortest.FormatOptional(v))
	}
	return strings.Join(all, " ")
}

func TestHistoryHasOneSamplePerStep(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1, 2)
		for _, answers := range [][]fleet.PollReply{
			{pollReply(generate, 1, 200, 0), pollReply(generate, 2, 400, 5)},
			{pollReply(generate, 1, 300, 0), malformedReply(generate, 2)},
			{pollReply(generate, 1, 124, 7), pollReply(generate, 2, 456, 70_000)},
		} {
			h.setReplies(answers...)
			h.ticks(5 * time.Second)
		}
		history := h.snapshot().History
		testutil.Equal(t, "step", history.Step, 5)
		testutil.Equal(t, "end", history.End, time.Now().UnixMilli())
		testutil.Equal(t, "mean load", formatSamples(history.LoadMean), "– 0.3 0.3 0.29")
		testutil.Equal(t, "standard deviation of the load", formatSamples(history.LoadStd), "– 0.1 0 0.166")
		testutil.Equal(t, "waiting", formatSamples(history.Waiting), "– 5 0 70007")
		testutil.Equal(t, "answering", formatSamples(history.Answering), "0 2 1 2")
		testutil.Equal(t, "malformed", formatSamples(history.Malformed), "0 0 1 0")
		two := h.history("2")
		testutil.Equal(t, "KV use", formatSamples(two.KV), "– 0.4 – 0.456")
		testutil.Equal(t, "waiting", formatSamples(two.Waiting), "– 5 – 65534")
		testutil.Equal(t, "hit rate", formatSamples(two.HitRate), "– – – –")
		testutil.Equal(t, "mean KV use of the endpoint", formatSamples(two.PeersKV.Mean), "– 0.3 0.3 0.29")
		testutil.Equal(t, "standard deviation at the endpoint", formatSamples(two.PeersKV.Std), "– 0.1 0 0.166")
	})
}

func TestHistoryKeepsFifteenMinutes(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		for n := range 400 {
			h.setReplies(pollReply(generate, 1, uint64(n), 0))
			h.ticks(5 * time.Second)
		}
		history, own := h.snapshot().History, h.history("1")
		testutil.Equal(t, "samples", []int{len(history.LoadMean), len(history.Malformed), len(own.KV), len(own.PeersKV.Std)}, []int{180, 180, 180, 180})
		testutil.Equal(t, "the oldest and the newest", []string{monitortest.FormatOptional(own.KV[0]), monitortest.FormatOptional(own.KV[179])}, []string{"0.22", "0.4"})
	})
}

func TestHistoryHasGapsForMissedSteps(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		h.setReplies(pollReply(generate, 1, 500, 0))
		h.ticks(5 * time.Second)
		time.Sleep(17 * time.Second) // while the process is suspended
		h.ticks(4 * time.Second)
		testutil.Equal(t, "mean load", formatSamples(h.snapshot().History.LoadMean), "– 0.5 – – 0.5 0.5")
		testutil.Equal(t, "answering", formatSamples(h.snapshot().History.Answering), "0 1 – – 1 1")
		testutil.Equal(t, "KV use", formatSamples(h.history("1").KV), "– 0.5 – – 0.5 0.5")
		time.Sleep(time.Hour)
		h.tick()
		testutil.Equal(t, "remaining samples after an hour", formatSamples(slices.DeleteFunc(h.history("1").KV, func(v *float64) bool { return v == nil })), "0.5")
	})
}

func TestHistoryOfRemovedWorkerIsFreed(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1, 2)
		h.setReplies(pollReply(generate, 1, 500, 0), pollReply(generate, 2, 500, 0))
		h.ticks(time.Minute)
		with := h.fleet.Stats.HistoryBytes.Load()
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 2})
		h.setReplies(pollReply(generate, 1, 500, 0))
		h.ticks(time.Minute)
		if _, found := h.monitor.RenderWorker("2"); found {
			t.Error("a worker that has left is still rendered")
		}
		want := int64(2*unsafe.Sizeof(compactHistory[uint8]{}) + unsafe.Sizeof(compactHistory[uint16]{})) // it had no hit rate
		if freed := with - h.fleet.Stats.HistoryBytes.Load(); freed < want || freed > want+1000 {
			t.Errorf("%d bytes were freed, want %d for the histories, and a little more", freed, want)
		}
		h.registerPolled(generate, 2)
		h.setReplies(pollReply(generate, 1, 500, 0), pollReply(generate, 2, 500, 0))
		h.ticks(5 * time.Second)
		testutil.Equal(t, "samples after it returned", formatSamples(h.history("2").KV[len(h.history("2").KV)-2:]), "– 0.5")
	})
}

func TestHistoryNotesWorkersWithoutHistory(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.monitor.options.Limit = 2
		h.registerPolled(generate, 1, 2, 3)
		h.setReplies(pollReply(generate, 1, 100, 0), pollReply(generate, 2, 200, 0), pollReply(generate, 3, 300, 0))
		h.ticks(10 * time.Second)
		testutil.Equal(t, "rows with a history", h.monitor.rowsWithHistory, 2)
		three := h.history("3")
		testutil.Equal(t, "note", three.Note, "This worker has no history: there is room for the histories of only 2 workers.")
		testutil.Equal(t, "KV use", formatSamples(three.KV), "– – –")
		testutil.Equal(t, "note of a worker with a history", h.history("1").Note, "")
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
		h.setReplies(pollReply(generate, 2, 200, 0), pollReply(generate, 3, 300, 0))
		h.ticks(10 * time.Second)
		testutil.Equal(t, "KV use after there is room", formatSamples(h.history("3").KV), "– – – 0.3 0.3")
		testutil.Equal(t, "note", h.history("3").Note, "")
	})
}

// TestHistoryRowsAreBounded sets --max-workers above the bound.
func TestHistoryRowsAreBounded(t *testing.T) {
	const most = 100_000
	inBubbleWithLimit(t, most, func(h *harness) {
		t := h.t
		h.monitor.options.Limit = most
		ids := make([]uint64, 65_540)
		for i := range ids {
			ids[i] = uint64(1 + i)
		}
		h.registerPublishing(generate, ids...)
		for _, id := range ids {
			h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: id}, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
		}
		h.ticks(5 * time.Second)
		testutil.Equal(t, "rows with a history", h.monitor.rowsWithHistory, 65_536)
	})
}

// TestHistoryMemoryMatchesDocs checks the memory of each worker's history.
func TestHistoryMemoryMatchesDocs(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		const workers = 1000
		var ids []uint64
		for id := range uint64(workers) {
			ids = append(ids, id+1)
		}
		before := h.fleet.Stats.HistoryBytes.Load()
		h.registerPublishing(generate, ids...)
		for _, id := range ids {
			from := fleet.Origin{Endpoint: generate, Worker: id}
			h.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
			h.fleet.RecordForwardPass(from, fleet.Pass{Counter: 1, Running: 1})
			h.fleet.RecordHit(id, 10, 5)
		}
		h.ticks(10 * time.Second)
		if each := (h.fleet.Stats.HistoryBytes.Load() - before) / workers; each < 1024 || each > 1638 {
			t.Errorf("%d bytes a worker, want 1,024 to 1,638", each)
		}
	})
}

func TestRowKeysAreUnique(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		keys := func(want ...string) {
			t.Helper()
			h.tick()
			var got []string
			for _, w := range h.snapshot().Workers {
				got = append(got, w.Component+" "+w.Key)
			}
			testutil.Equal(t, "rows", got, want)
		}
		h.registerPolled(generate, 7, 8)
		h.registerPolled(prefill, 7)
		h.setReplies(pollReply(generate, 7, 1, 0), pollReply(prefill, 7, 1, 0), pollReply(generate, 8, 1, 0))
		keys("backend 7", "backend 8", "prefill 7@prefill/generate")
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 7})
		h.setReplies(pollReply(prefill, 7, 1, 0), pollReply(generate, 8, 1, 0))
		keys("backend 8", "prefill 7@prefill/generate") // while the row exists
		h.registerPublishing(prefill, 9)
		for rank := range uint32(2) {
			h.fleet.RecordLoad(fleet.Origin{Endpoint: prefill, Worker: 9, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		}
		keys("backend 8", "prefill 7@prefill/generate", "prefill 9/0", "prefill 9/1")
		testutil.Equal(t, "workers, however many ranks", h.snapshot().Fleet.States.Answering, 3)
		testutil.Equal(t, "departures", len(h.monitor.byEndpoint[prefill].departures), 0)
		h.fleet.Deregister("", fleet.Instance{Endpoint: prefill, ID: 7})
		h.setReplies(pollReply(generate, 8, 1, 0))
		h.ticks(3 * time.Second)
		h.registerPolled(generate, 7)
		h.setReplies(pollReply(generate, 7, 1, 0), pollReply(generate, 8, 1, 0))
		keys("backend 7", "backend 8", "prefill 9/0", "prefill 9/1")
	})
}

func TestHitRateIgnoresHitsBeforeRegistration(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.fleet.RecordHit(1, 1000, 0) // of an unknown worker
		h.tick()
		testutil.Equal(t, "hit rate", monitortest.FormatOptional(h.snapshot().Fleet.HitRate), "0")
		h.ticks(6 * time.Minute)
		testutil.Equal(t, "hit rate of the last five minutes", monitortest.FormatOptional(h.snapshot().Fleet.HitRate), "–")
		h.registerPolled(generate, 1) // the counters become those of the worker
		h.setReplies(pollReply(generate, 1, 1, 0))
		h.tick()
		testutil.Equal(t, "hit rate once the worker is known", monitortest.FormatOptional(h.snapshot().Fleet.HitRate), "–")
		h.fleet.RecordHit(1, 100, 100)
		h.tick()
		s := h.snapshot()
		testutil.Equal(t, "hit rate", monitortest.FormatOptional(s.Fleet.HitRate), "1")
		testutil.Equal(t, "hit rate since the start", monitortest.FormatOptional(s.Fleet.HitRateTotal), "0.0909")
		testutil.Equal(t, "hit rates of the worker", []string{monitortest.FormatOptional(s.Workers[0].HitRate), monitortest.FormatOptional(s.Workers[0].HitRateTotal)}, []string{"1", "0.0909"})
	})
}

func TestHitRateIgnoresHitsBeforeFirstSample(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		h.fleet.RecordHit(1, 100, 50)
		h.monitor = New(options(h.fleet)) // the monitor starts after the hits
		h.tick()
		s := h.snapshot()
		testutil.Equal(t, "hit rates", []string{monitortest.FormatOptional(s.Fleet.HitRate), monitortest.FormatOptional(s.Fleet.HitRateTotal)}, []string{"–", "0.5"})
	})
}

func TestEventRateIsFiveSecondMean(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		for range 20 {
			for range 40 {
				h.fleet.Stats.CountMessage(stats.LoadEvent)
				h.fleet.Stats.CountMessage(stats.InstanceKeys) // does not carry a load
			}
			h.ticks(2 * time.Second)
		}
		if v := h.snapshot().Fleet.EventsPerSecond; v < 16 || v > 24 {
			t.Errorf("%v events a second, want about 20", v)
		}
	})
}

func TestAnomaliesOfWorker(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		answers := []fleet.PollReply{pollReply(generate, 1, 980, 12)}
		for id := range uint64(9) {
			answers = append(answers, pollReply(generate, 2+id, 400, 0))
		}
		h.setReplies(answers...)
		h.fleet.RecordHit(1, 100, 90)
		h.fleet.RecordHit(2, 900, 100)
		h.ticks(5 * time.Second)
		testutil.Equal(t, "anomalies of a typical worker", h.anomalies("3"), nil)
		testutil.Equal(t, "anomalies of the full worker", h.anomalies("1"), []string{
			"KV use 98\u00a0% is 3.0 standard deviations above its endpoint's mean of 46\u00a0%.",
			"12 requests wait here while its endpoint has 54\u00a0% of its blocks free.",
			"Its hit rate is 90\u00a0%, and its endpoint's is 19\u00a0%.",
		})
		h.setReplies(append(answers[:8:8], malformedReply(generate, 9))...)
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 8})
		h.ticks(10 * time.Second)
		testutil.Equal(t, "anomalies of a silent worker", h.anomalies("10"), []string{"It is registered in etcd, but its last load was received 10 s ago."})
		testutil.Equal(t, "anomalies of a malformed worker", h.anomalies("9"), []string{"It answers polls, but its load cannot be decoded."})
		testutil.Equal(t, "anomalies of an unregistered worker", h.anomalies("8"), []string{"It reports, but its registration in etcd has been gone for 9 s: no router sees it."})
		h.registerPublishing(prefill, 0x21, 0x22)
		h.fleet.RecordLoad(fleet.Origin{Endpoint: prefill, Worker: 0x21}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		h.ticks(5 * time.Second)
		testutil.Equal(t, "anomalies of a worker that publishes few values", h.anomalies("33"), []string{"Slots and waiting are not shown: its release does not publish them, or its engine does not report them."})
		testutil.Equal(t, "anomalies of a worker that has published nothing", h.anomalies("34"), []string{"It is registered in etcd, but no load has been received from it yet."})
	})
}
