package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

const (
	goodID     = 0x6b8b4567327b23c6 // no seed has one that a few changed bytes make this
	goodBlocks = 7                  // of overlap, a hit
)

// goodWorker is the one that tells the truth. With its answers to polls go those that
// it is told to mutter.
type goodWorker struct {
	answered atomic.Uint64 // polls
	hits     int

	mu        sync.Mutex
	muttering [][]byte
	muttered  chan struct{}
}

func goodService() string {
	return wire.ServiceName(wire.EraPlain, garbage.Namespace, garbage.Endpoint.Component)
}

func goodSubject() string { return wire.Subject(goodService(), garbage.Endpoint.Name, goodID) }

// newGoodWorker registers it. It lives as long as the stage's connections.
func newGoodWorker(ctx context.Context, s *stage) (*goodWorker, error) {
	g := new(goodWorker)
	reply := fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":"good","endpoints":[{"name":%q,"subject":%q,"data":`+
		`{"request_active_slots":1,"request_total_slots":8,"kv_active_blocks":10,"kv_total_blocks":1000,"num_requests_waiting":0,"gpu_cache_usage_perc":0.5,"gpu_prefix_cache_hit_rate":0.25}}]}`,
		goodService(), goodSubject(), goodSubject())
	if _, err := s.nats.Subscribe(wire.StatsSubject(goodService()), func(m *nats.Msg) { g.answer(m, reply) }); err != nil {
		return nil, fmt.Errorf("answer polls: %w", err)
	}
	if err := s.nats.FlushTimeout(patience); err != nil {
		return nil, fmt.Errorf("answer polls: %w", err)
	}
	in := fleet.Instance{Endpoint: garbage.Endpoint, ID: goodID}
	value := wire.LayoutInstances.Value(garbage.Namespace, in, goodSubject())
	if _, err := s.client.Put(ctx, wire.LayoutInstances.Key(garbage.Namespace, in), string(value)); err != nil {
		return nil, fmt.Errorf("register the good worker: %w", err)
	}
	return g, nil
}

func (g *goodWorker) answer(m *nats.Msg, reply []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.muttering {
		m.Respond(b) // what is lost is missed when messages are counted
	}
	if g.muttering != nil {
		close(g.muttered)
		g.muttering = nil
	}
	if m.Respond(reply) == nil {
		g.answered.Add(1)
	}
}

// mutter has these said at the next poll of the program, and waits for it.
func (g *goodWorker) mutter(ctx context.Context, m *instance, all [][]byte) error {
	done := make(chan struct{})
	g.mu.Lock()
	g.muttering, g.muttered = all, done
	g.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		return errors.New("the program does not poll")
	case <-m.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hit publishes a hit of it.
func (g *goodWorker) hit(nc *nats.Conn) error {
	b := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, uint64(goodID), 4*goodBlocks, goodBlocks)
	if err := nc.Publish(wire.HitRateSubject(garbage.Namespace), b); err != nil {
		return fmt.Errorf("publish a hit: %w", err)
	}
	g.hits++
	return nil
}

// check complains unless a page has of it what it has said.
func (g *goodWorker) check(p page) error {
	want := map[string]float64{
		"llm_worker_up": 1, "llm_kv_blocks_active": 10, "llm_kv_blocks_total": 1000, "llm_requests_active_slots": 1, "llm_kv_hit_rate_percent": 0.25,
	}
	if g.hits > 0 {
		want[islName], want[overlapName] = float64(4*goodBlocks*g.hits), float64(goodBlocks*g.hits)
	}
	for metric, v := range want {
		series := fmt.Sprintf(`%s{component=%q,endpoint=%q,worker_id="%d"}`, metric, garbage.Endpoint.Component, garbage.Endpoint.Name, uint64(goodID))
		if n, got := p.sum(series); n != 1 || got != v {
			return fmt.Errorf("%s has %d series with %v, want one with %v", series, n, got, v)
		}
	}
	return nil
}
