package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/mock"
)

// fresh is how long it takes from a change of a worker's load until the page has it,
// by a reader who takes one page after the other.
func (s *stage) fresh(ctx context.Context) error {
	for _, f := range []freshness{
		{name: "polled (0.5.1), --poll-interval 0.1", release: "0.5.1", plane: mock.NATS, must: 150 * time.Millisecond},
		{name: "published on NATS (1.6.1)", release: "1.6.1", plane: mock.NATS, must: 20 * time.Millisecond},
		{name: "published on ZeroMQ (1.6.1)", release: "1.6.1", plane: mock.ZMQ, must: 20 * time.Millisecond},
	} {
		if err := s.freshOf(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// freshness is a way by which loads come.
type freshness struct {
	name, release, plane string
	must                 time.Duration
}

func (f freshness) polled() bool { return f.release == "0.5.1" }

func (s *stage) freshOf(ctx context.Context, f freshness) (err error) {
	const workers = 1000
	ctx, cancel := context.WithCancel(ctx)
	namespace := fmt.Sprintf("bench-fresh-%s-%s", f.release, f.plane)
	namespace = string(bytes.ReplaceAll([]byte(namespace), []byte("."), []byte("-")))
	c := changes{workers: make([]change, workers), index: make(map[uint64]int)}
	var registered atomic.Int64
	var mocks sync.WaitGroup
	var failed error
	mocks.Go(func() {
		failed = mock.Run(ctx, s.nats, s.client, mock.Config{
			Namespace: namespace, Component: component, Endpoint: "generate", Workers: workers, Release: f.release, EventPlane: f.plane, Log: quiet,
			Load: func(n int) fleet.Load { return c.load(n, !f.polled()) },
			Registered: func(n int, in fleet.Instance) {
				c.know(n, in.ID)
				registered.Add(1)
			},
		})
	})
	defer func() {
		cancel()
		mocks.Wait()
		if err == nil {
			err = failed
		}
	}()
	if err := until(ctx, 20*time.Millisecond, func() error {
		if n := registered.Load(); n < workers {
			return fmt.Errorf("%d of %d mock workers have registered", n, workers)
		}
		return nil
	}); err != nil {
		return err
	}
	m, err := s.metrics(ctx, namespace, "--poll-interval", "0.1")
	if err != nil {
		return err
	}
	defer m.end()
	if err := m.hears(ctx, f, workers); err != nil {
		return err
	}
	lags, err := s.watch(ctx, m, &c, f)
	if err != nil {
		return err
	}
	slices.Sort(lags)
	at := func(part float64) time.Duration { return lags[int(part*float64(len(lags)-1))] }
	s.table.add(row{
		measure: fmt.Sprintf("a load changes until the page has it, 1,000 workers, %s: p99 (p50, most) of %s changes", f.name, count(len(lags))),
		ours:    fmt.Sprintf("%s (%s, %s)", milliseconds(at(0.99)), milliseconds(at(0.5)), milliseconds(at(1))),
		must:    fmt.Sprintf("≤ %.0f ms", f.must.Seconds()*1e3), met: at(0.99) <= f.must,
	})
	return nil
}

// hears waits until the instance knows the workers and is subscribed to each.
func (m *instance) hears(ctx context.Context, f freshness, workers int) error {
	switch {
	case f.polled():
		return m.shows(ctx, "llm_kv_blocks_active{", workers)
	case f.plane == mock.NATS:
		return m.counts(ctx, `llm_workers{component="backend",endpoint="generate"`, workers)
	default:
		return m.counts(ctx, `dynamo_metrics_zmq_publishers{state="connected"}`, 2*workers) // loads and forward passes
	}
}

// counts waits until the series that start so add up to n.
func (m *instance) counts(ctx context.Context, start string, n int) error {
	return until(ctx, 50*time.Millisecond, func() error {
		p, err := m.page(ctx)
		if err != nil {
			return err
		}
		if _, got := p.sum(start); int(got) != n {
			return fmt.Errorf("%s is %.0f, want %d", start, got, n)
		}
		return nil
	})
}

// watch changes loads and looks for them on the page.
func (s *stage) watch(ctx context.Context, m *instance, c *changes, f freshness) ([]time.Duration, error) {
	length := 10 * time.Second
	if s.quick {
		length = 4 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, length+patience)
	defer cancel()
	changing, stop := context.WithTimeout(ctx, length)
	defer stop()
	var changer sync.WaitGroup
	defer changer.Wait()
	if f.polled() {
		changer.Go(func() {
			for connect.Wait(changing, 5*time.Millisecond) {
				c.change(rand.IntN(len(c.workers)))
			}
		})
	} else {
		c.own.Store(true)
		defer c.own.Store(false)
	}
	for c.pending() > 0 || changing.Err() == nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d changes never came to the page: %w", c.pending(), ctx.Err())
		}
		if changing.Err() != nil {
			c.own.Store(false)
		}
		p, err := m.page(ctx)
		if err != nil {
			return nil, err
		}
		c.seen(p, time.Now())
		connect.Wait(ctx, 3*time.Millisecond) // or there is nothing of the machine left
	}
	if len(c.lags) == 0 {
		return nil, fmt.Errorf("no load has changed")
	}
	return c.lags, nil
}

// changes are those of the workers' loads.
type changes struct {
	own atomic.Bool // workers change their loads when asked, which is when they publish them

	mu      sync.Mutex
	workers []change
	index   map[uint64]int // by their ids
	waiting int
	lags    []time.Duration
}

// change is the last one of a worker.
type change struct {
	value uint64
	at    time.Time // when it was made; zero: it has been seen
}

func (c *changes) know(n int, id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index[id] = n
}

func (c *changes) pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

// change changes the load of a worker, unless the last change has not been seen.
func (c *changes) change(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changeLocked(n)
}

func (c *changes) changeLocked(n int) {
	w := &c.workers[n]
	if !w.at.IsZero() {
		return
	}
	w.value++
	w.at = time.Now()
	c.waiting++
}

// load is what a worker says. It has no requests, or it would report passes, too.
func (c *changes) load(n int, publishes bool) fleet.Load {
	c.mu.Lock()
	defer c.mu.Unlock()
	if publishes && c.own.Load() && rand.IntN(20) == 0 {
		c.changeLocked(n)
	}
	return fleet.Load{KVActive: fleet.Some(c.workers[n].value), KVTotal: fleet.Some[uint64](1 << 30)}
}

var idStart = []byte(`worker_id="`)

// seen books the changes that a page has.
func (c *changes) seen(p page, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.part("llm_kv_blocks_active{").each(func(series, value []byte) {
		_, label, _ := bytes.Cut(series, idStart)
		id, _ := strconv.ParseUint(string(bytes.TrimSuffix(label, []byte(`"}`))), 10, 64)
		n, known := c.index[id]
		if !known {
			return
		}
		w := &c.workers[n]
		if v, err := strconv.ParseUint(string(value), 10, 64); err != nil || v != w.value || w.at.IsZero() {
			return
		}
		c.lags = append(c.lags, now.Sub(w.at))
		w.at = time.Time{}
		c.waiting--
	})
}
