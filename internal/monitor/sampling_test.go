package monitor

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// run samples the fleet once a second until the test ends.
func (h *harness) run() {
	ctx, stop := context.WithCancel(h.t.Context())
	var running sync.WaitGroup
	running.Go(func() { h.monitor.Run(ctx) })
	h.t.Cleanup(func() { stop(); running.Wait() })
}

func TestMonitorSamplesLessOftenWithoutStreams(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		h.run()
		samples := func(d time.Duration) (n uint64) {
			h.monitor.mu.Lock()
			before := h.monitor.sampleCount
			h.monitor.mu.Unlock()
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(500 * time.Millisecond)
				h.monitor.mu.Lock()
				h.monitor.sampleTook = 70 * time.Millisecond // in a bubble a sample takes no time
				n = h.monitor.sampleCount - before
				h.monitor.mu.Unlock()
			}
			return n
		}
		time.Sleep(250 * time.Millisecond) // so that no time below is also the time of a tick
		samples(time.Second)
		testutil.Equal(t, "samples in twenty seconds", samples(20*time.Second), 5) // at the first tick after 50 times 70 ms: every four seconds
		testutil.Equal(t, "steps of the history without a value", strings.Count(formatSamples(h.snapshot().History.Answering), "–"), 0)
		h.fleet.Stats.Streams.Store(1)
		testutil.Equal(t, "samples in twenty seconds with a stream", samples(20*time.Second), 20)
	})
}

func TestRenderIsSharedUntilTheNextSample(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		h.ticks(3 * time.Second)
		if h.monitor.renderings != [2]*Rendering{} {
			t.Error("a snapshot is rendered although no client asked for one")
		}
		for range 10 {
			h.tick()
			first, _ := h.monitor.Render(NoHistory)
			second, newer := h.monitor.Render(NoHistory)
			whole, _ := h.monitor.Render(-1)
			if first != second || first == whole || first.History || !whole.History {
				t.Error("one sample is rendered twice, or has a history that was not asked for")
			}
			h.tick()
			select {
			case <-newer:
			default:
				t.Error("the channel of a newer sample is not closed")
			}
			if third, _ := h.monitor.Render(NoHistory); third == first || third.Sample != first.Sample+1 {
				t.Errorf("the next sample has the number %d after %d, or the same rendering", third.Sample, first.Sample)
			}
		}
	})
}
