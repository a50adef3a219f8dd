package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/mock"
)

// measureFreshness measures the time from a change of a worker's load until /metrics shows
// it, with one scrape after another. The workers run in a separate process, because otherwise
// the scrapes would wait for them.
func (s *environment) measureFreshness(ctx context.Context) error {
	for _, f := range []freshness{
		{name: "polled (0.5.1), --poll-interval 0.1", release: polledRelease, plane: mock.NATS, target: 150 * time.Millisecond},
		{name: "published on NATS (1.6.1)", release: "1.6.1", plane: mock.NATS, target: 20 * time.Millisecond},
		{name: "published on ZeroMQ (1.6.1)", release: "1.6.1", plane: mock.ZMQ, target: 20 * time.Millisecond},
	} {
		if err := s.measureFreshnessOf(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// freshness is one way by which loads reach the program.
type freshness struct {
	name, release, plane string
	target               time.Duration
}

// polledRelease is the last release whose workers are polled.
const polledRelease = "0.5.1"

func (f freshness) polled() bool { return f.release == polledRelease }

func (s *environment) measureFreshnessOf(ctx context.Context, f freshness) error {
	const workers = 1000
	namespace := "bench-fresh-" + strings.ReplaceAll(f.release, ".", "-") + "-" + f.plane
	mocks, err := s.startSubprocess(ctx, modeChanging, "--namespace", namespace, "--workers", fmt.Sprint(workers), "--etcd", s.etcd.Endpoint(),
		"--release", f.release, "--event-plane", f.plane)
	if err != nil {
		return err
	}
	defer mocks.terminate()
	m, err := s.startMetrics(ctx, namespace, "--poll-interval", "0.1")
	if err != nil {
		return err
	}
	defer m.terminate()
	if err := m.waitForSubscriptions(ctx, f, workers); err != nil {
		return fmt.Errorf("%w (the workers logged: %s)", err, mocks.lastLine())
	}
	const rounds = 4
	var all [rounds]lags
	for i := range all {
		if all[i], err = s.sampleLags(ctx, m); err != nil {
			return err
		}
	}
	slices.SortFunc(all[:], func(a, b lags) int { return cmp.Compare(a.quantile(0.99), b.quantile(0.99)) })
	best := all[0] // other processes on the machine can only increase the lag
	s.table.add(row{
		measure: fmt.Sprintf("from a change of a load until /metrics shows it, 1,000 workers, %s, %d rounds of %s changes: the best round's p99 (its p50 and max; p99 of the worst round)",
			f.name, rounds, count(len(best))),
		ours:   fmt.Sprintf("%s (%s, %s; %s)", milliseconds(best.quantile(0.99)), milliseconds(best.quantile(0.5)), milliseconds(best.quantile(1)), milliseconds(all[rounds-1].quantile(0.99))),
		target: fmt.Sprintf("≤ %.0f ms", f.target.Seconds()*1e3), met: best.quantile(0.99) <= f.target,
	})
	return nil
}

// lags are the ages of changes when a scrape first showed them, shortest first.
type lags []time.Duration

func (l lags) quantile(part float64) time.Duration { return l[int(part*float64(len(l)-1))] }

// waitForSubscriptions waits until the instance has all workers and has subscribed to each
// of them.
func (m *instance) waitForSubscriptions(ctx context.Context, f freshness, workers int) error {
	switch {
	case f.polled():
		return m.waitForSeries(ctx, "llm_kv_blocks_active{", workers)
	case f.plane == mock.NATS:
		return m.waitForSum(ctx, `llm_workers{component="backend",endpoint="generate"`, workers)
	default:
		return m.waitForSum(ctx, `dynamo_metrics_zmq_publishers{state="connected"}`, 2*workers) // one publisher each for loads and forward passes
	}
}

// waitForSum waits until the values of the series that begin with start add up to n.
func (m *instance) waitForSum(ctx context.Context, start string, n int) error {
	return until(ctx, 50*time.Millisecond, func() error {
		p, err := m.scrape(ctx)
		if err != nil {
			return err
		}
		if _, got := p.sum(start); int(got) != n {
			return fmt.Errorf("%s is %.0f, want %d", start, got, n)
		}
		return nil
	})
}

// sampleLags scrapes continuously and returns the lags that it saw.
func (s *environment) sampleLags(ctx context.Context, m *instance) (lags, error) {
	length := 5 * time.Second
	if s.quick {
		length = time.Second
	}
	var all lags
	seen := make(map[string]int64) // when each worker's load changed last, as scraped
	begin := time.Now()
	for time.Since(begin) < length {
		p, err := m.scrape(ctx)
		if err != nil {
			return nil, err
		}
		now := time.Now().UnixMicro()
		p.withPrefix("llm_kv_blocks_active{").each(func(series, value []byte) {
			v, err := strconv.ParseFloat(string(value), 64)
			changed := int64(v)
			if err == nil && changed >= begin.UnixMicro() && changed != seen[string(series)] {
				all = append(all, time.Duration(now-changed)*time.Microsecond)
			}
			seen[string(series)] = changed
		})
		backoff.Wait(ctx, 2*time.Millisecond) // so that the other processes get CPU time
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no load has changed")
	}
	slices.Sort(all)
	return all, nil
}

// runChangingWorkers runs workers that report as their active blocks the time of their last
// change, in microseconds since 1970.
func (s subprocess) runChangingWorkers(ctx context.Context) error {
	nc, err := connect.DialNATS(ctx, s.url, noEnv, quiet, nil)
	if err != nil || nc == nil {
		return err
	}
	defer nc.Close()
	client, err := connect.DialEtcd(ctx, s.etcd, noEnv, quiet)
	if err != nil || client == nil {
		return err
	}
	defer client.Close()
	polled := s.release == polledRelease
	changed := make([]atomic.Int64, s.workers)
	change := func(n int) { changed[n].Store(time.Now().UnixMicro()) }
	var changer sync.WaitGroup
	defer changer.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if polled {
		changer.Go(func() {
			for backoff.Wait(ctx, 5*time.Millisecond) {
				change(rand.IntN(s.workers))
			}
		})
	}
	return mock.Run(ctx, nc, client, mock.Config{
		Namespace: s.namespace, Component: component, Endpoint: "generate", Workers: s.workers, Release: s.release, EventPlane: s.plane, Log: quiet,
		Load: func(n int) fleet.Load {
			if !polled && rand.IntN(20) == 0 {
				change(n) // a change is published immediately
			}
			// The workers have no requests, because they would report forward passes, too.
			return fleet.Load{KVActive: fleet.Some(uint64(changed[n].Load())), KVTotal: fleet.Some[uint64](1 << 60)}
		},
	})
}
