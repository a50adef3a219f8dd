package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// measureMemory measures the peak resident memory of the program while it handles polls, scrapes,
// and as many events as one publisher can send.
func (s *environment) measureMemory(ctx context.Context) error {
	most := map[int]int64{1000: 60e6, 10_000: 200e6}
	for _, n := range s.sizes() {
		before, peak, events, err := s.residentMemoryOf(ctx, n)
		if err != nil {
			return fmt.Errorf("%d workers: %w", n, err)
		}
		s.table.add(row{
			measure: fmt.Sprintf("peak resident memory (before the events), %s workers, %s events at full speed, a scrape a second", count(n), count(events)),
			ours:    fmt.Sprintf("%s (%s)", megabytes(peak), megabytes(before)), target: "≤ " + megabytes(most[n]), met: peak <= most[n],
		})
	}
	return nil
}

func (s *environment) residentMemoryOf(ctx context.Context, workers int) (before, peak int64, events int, err error) {
	namespace := fmt.Sprintf("bench-memory-%d", workers)
	c, err := startFakeWorkers(ctx, s.nats, s.client, namespace, workers)
	if err != nil {
		return 0, 0, 0, err
	}
	defer c.leave()
	m, err := s.startMetrics(ctx, namespace)
	if err != nil {
		return 0, 0, 0, err
	}
	defer m.terminate()
	if err := m.waitForSeries(ctx, "llm_kv_blocks_active{", workers); err != nil {
		return 0, 0, 0, err
	}
	if before, _, err = m.resident(); err != nil {
		return 0, 0, 0, err
	}
	nc, err := s.connect(ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	defer nc.Close()
	length := 15 * time.Second
	if s.quick {
		length = 4 * time.Second
	}
	loading, stop := context.WithTimeout(ctx, length)
	defer stop()
	var scraper sync.WaitGroup
	defer scraper.Wait()
	scraper.Go(func() {
		for backoff.Wait(loading, time.Second) {
			m.scrape(loading) // the scrape below reports a failure
		}
	})
	events, err = flood(loading, nc, namespace, hitEvents(workers), 0)
	if err != nil {
		return 0, 0, 0, err
	}
	if _, err := m.scrape(ctx); err != nil {
		return 0, 0, 0, err
	}
	_, peak, err = m.resident()
	return before, peak, events, err
}

// flood publishes events until ctx ends: rate of them a second, or as many as possible if
// rate is 0.
func flood(ctx context.Context, nc *nats.Conn, namespace string, events []event, rate int) (n int, err error) {
	subject := wire.HitRateSubject(namespace)
	begin := time.Now()
	for ctx.Err() == nil {
		due := n + 1000
		if rate > 0 {
			due = int(float64(rate) * time.Since(begin).Seconds())
		}
		for ; n < due; n++ {
			if err := nc.Publish(subject, events[n%len(events)].data); err != nil {
				return n, fmt.Errorf("publish: %w", err)
			}
		}
		if rate > 0 {
			backoff.Wait(ctx, time.Millisecond)
		}
	}
	if err := nc.FlushTimeout(waitTimeout); err != nil {
		return n, fmt.Errorf("publish: %w", err)
	}
	return n, nil
}
