package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// mockScript is what one mock worker reports: its load, until the test changes it, and its
// hits, once each.
type mockScript struct {
	mu   sync.Mutex
	load fleet.Load
	hits [][2]int
	step func(*fleet.Load) // if not nil, called whenever the load is read
	lose func(string) bool // if not nil, decides whether an event of a topic is lost
}

// loadOf returns a load with this many active slots, waiting requests and active blocks.
func loadOf(slots, waiting, blocks uint64) fleet.Load {
	return fleet.Load{
		ActiveSlots: fleet.Some(slots), TotalSlots: fleet.Some[uint64](100), Waiting: fleet.Some(waiting),
		KVActive: fleet.Some(blocks), KVTotal: fleet.Some[uint64](1000),
		CacheUsage: fleet.Some(0.25), HitRate: fleet.Some(0.5),
	}
}

// halfFull returns a load with this many active slots and waiting requests, and half of the
// KV cache in use.
func halfFull(slots, waiting uint64) fleet.Load {
	l := loadOf(slots, waiting, 500)
	l.CacheUsage = fleet.Some(0.5)
	return l
}

// change changes what the mock worker reports.
func (p *mockScript) change(f func(*mockScript)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *mockScript) setLoad(l fleet.Load) { p.change(func(p *mockScript) { p.load = l }) }

// config returns the configuration of one worker of backend/generate that follows the
// script.
func (p *mockScript) config(release, plane string) mock.Config {
	return p.applyTo(mock.Config{Namespace: "dynamo", Component: "backend", Endpoint: "generate", Release: release, EventPlane: plane})
}

func (p *mockScript) applyTo(c mock.Config) mock.Config {
	c.EventInterval = 10 * time.Millisecond
	c.Load = func(int) fleet.Load {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.step != nil {
			p.step(&p.load)
		}
		return p.load
	}
	c.Hit = func(int) (isl, overlap int, ok bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.hits) == 0 {
			return 0, 0, false
		}
		h := p.hits[0]
		p.hits = p.hits[1:]
		return h[0], h[1], true
	}
	c.DropEvent = func(_ int, topic string) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.lose != nil && p.lose(topic)
	}
	return c
}

// mockWorker is one mock worker in the test's own process.
type mockWorker struct {
	t    *testing.T
	id   uint64
	end  context.CancelCauseFunc
	done chan error
}

// startMock runs one mock worker until the end of the test, and waits until it is registered.
func startMock(t *testing.T, nc *nats.Conn, ec *clientv3.Client, c mock.Config) *mockWorker {
	t.Helper()
	ctx, end := context.WithCancelCause(context.WithoutCancel(t.Context()))
	w := &mockWorker{t: t, end: end, done: make(chan error, 1)}
	registered := make(chan uint64, 10)
	c.OnRegistered = func(_ int, in fleet.Instance) { registered <- in.ID }
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.done <- mock.Run(ctx, nc, ec, c)
	}()
	t.Cleanup(func() { end(nil); <-ended })
	select {
	case w.id = <-registered:
	case err := <-w.done:
		t.Fatalf("a mock worker of %s ended: %v", c.Release, err)
	case <-time.After(testutil.WaitTimeout):
		t.Fatalf("a mock worker of %s does not register", c.Release)
	}
	return w
}

// mock runs one mock worker that is connected to the stack's servers.
func (s *stack) mock(c mock.Config) *mockWorker {
	s.t.Helper()
	return startMock(s.t, s.nats, s.etcd, c)
}

// stop ends the worker as SIGKILL does if cause is mock.ErrKilled, and as SIGTERM does if
// it is nil.
func (w *mockWorker) stop(cause error) {
	w.t.Helper()
	w.end(cause)
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Error("mock worker:", err)
		}
	case <-time.After(testutil.WaitTimeout):
		w.t.Fatal("a mock worker does not end")
	}
}

// series returns this worker's series of a metric.
func (w *mockWorker) series(metric string) string { return workerSeries(metric, "generate", w.id) }

// matchNoneOf returns an error if there is any series of a worker.
func (p samples) matchNoneOf(id uint64) error {
	if left := p.filter(fmt.Sprintf(`worker_id="%d"`, id)); len(left) > 0 {
		return fmt.Errorf("still there: %v", left)
	}
	return nil
}

// waitForPublishers waits until this many ZMQ publishers are connected and disconnected.
func (v *server) waitForPublishers(connected, disconnected int) {
	v.t.Helper()
	v.waitForSamples(samples{
		`dynamo_metrics_zmq_publishers{state="connected"}`:    fmt.Sprint(connected),
		`dynamo_metrics_zmq_publishers{state="disconnected"}`: fmt.Sprint(disconnected),
	})
}

// waitForNATSEvents waits until the program receives events on NATS. A program that is
// ready may not need NATS yet.
func (v *server) waitForNATSEvents() {
	v.t.Helper()
	v.waitFor(func(p samples) error {
		if p[`dynamo_metrics_connected{system="nats"}`] != "1" || p[`dynamo_metrics_polls_total{result="ok"}`] == p[`dynamo_metrics_polls_total{result="empty"}`] {
			return fmt.Errorf("no poll over NATS yet: %v", p.filter("polls_total"))
		}
		return nil
	})
}

// waitUntilNotReady waits for the status 503 with this text.
func (v *server) waitUntilNotReady(why string) {
	v.t.Helper()
	testutil.Until(v.t, func() error {
		if status, body := get(v.url + "/-/ready?strict=true"); status != 503 || body != "not ready: "+why+"\n" {
			return fmt.Errorf("GET /-/ready?strict=true: %d %q, want 503 and %q", status, body, why)
		}
		return nil
	})
}
