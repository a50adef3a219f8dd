package main

import (
	"context"
	"fmt"
	"time"
)

const pollSeries = "dynamo_metrics_poll_duration_seconds"

// measureManyWorkers checks that the program can serve a hundred thousand workers, and measures
// the cost. A quick run omits it.
func (s *environment) measureManyWorkers(ctx context.Context) error {
	if s.quick {
		return nil
	}
	const namespace, workers = "bench-many", 100_000
	c, err := startFakeWorkers(ctx, s.nats, s.client, namespace, workers)
	if err != nil {
		return err
	}
	defer c.leave()
	m, err := s.startMetrics(ctx, namespace, "--max-workers", "200000")
	if err != nil {
		return err
	}
	defer m.terminate()
	ready := time.Since(m.started)
	if err := m.waitForSeries(ctx, "llm_kv_blocks_active{", workers); err != nil {
		return err
	}
	p, err := m.scrape(ctx)
	if err != nil {
		return err
	}
	_, before := p.sum(pollSeries + "_sum")
	_, polls := p.sum(pollSeries + "_count")
	if err := until(ctx, 500*time.Millisecond, func() error {
		if p, err = m.scrape(ctx); err != nil {
			return err
		}
		if _, now := p.sum(pollSeries + "_count"); now < polls+5 {
			return fmt.Errorf("%.0f polls", now)
		}
		return nil
	}); err != nil {
		return err
	}
	_, sum := p.sum(pollSeries + "_sum")
	_, number := p.sum(pollSeries + "_count")
	begin := time.Now()
	if p, err = m.scrape(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	shown, _ := p.sum("llm_kv_blocks_active{")
	_, dropped := p.sum(droppedSeries)
	_, peak, err := m.resident()
	if err != nil {
		return err
	}
	name := "100,000 workers, --max-workers 200000: "
	s.table.add(row{measure: name + "workers shown", ours: count(shown), target: "100,000", met: shown == workers, gate: true})
	s.table.add(row{measure: name + "messages dropped", ours: fmt.Sprintf("%.0f", dropped)})
	s.table.add(row{measure: name + "a poll", ours: milliseconds(time.Duration((sum - before) / (number - polls) * 1e9))})
	s.table.add(row{measure: name + "a scrape, over HTTP, " + megabytes(int64(len(p))), ours: milliseconds(took)})
	s.table.add(row{measure: name + "exec to ready", ours: milliseconds(ready)})
	s.table.add(row{measure: name + "peak resident memory", ours: megabytes(peak)})
	return nil
}
