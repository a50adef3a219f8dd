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
	controlID      = 0x6b8b4567327b23c6 // no seed has one that a few changed bytes make this
	controlOverlap = 7                  // of overlap, a hit
)

// goodWorker is the one that tells the truth. With its answers to polls go those that
// it is told to mutter.
type controlWorker struct {
	answered atomic.Uint64 // polls
	hits     int

	mu           sync.Mutex
	extraReplies [][]byte
	extraSent    chan struct{}
}

func controlService() string {
	return wire.ServiceName(wire.EraPlain, garbage.Namespace, garbage.Endpoint.Component)
}

func controlSubject() string { return wire.Subject(controlService(), garbage.Endpoint.Name, controlID) }

// newGoodWorker registers it. It lives as long as the stage's connections.
func newControlWorker(ctx context.Context, s *environment) (*controlWorker, error) {
	g := new(controlWorker)
	reply := fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":"good","endpoints":[{"name":%q,"subject":%q,"data":`+
		`{"request_active_slots":1,"request_total_slots":8,"kv_active_blocks":10,"kv_total_blocks":1000,"num_requests_waiting":0,"gpu_cache_usage_perc":0.5,"gpu_prefix_cache_hit_rate":0.25}}]}`,
		controlService(), controlSubject(), controlSubject())
	if _, err := s.nats.Subscribe(wire.StatsSubject(controlService()), func(m *nats.Msg) { g.answer(m, reply) }); err != nil {
		return nil, fmt.Errorf("answer polls: %w", err)
	}
	if err := s.nats.FlushTimeout(waitTimeout); err != nil {
		return nil, fmt.Errorf("answer polls: %w", err)
	}
	in := fleet.Instance{Endpoint: garbage.Endpoint, ID: controlID}
	value := wire.LayoutInstances.Value(garbage.Namespace, in, controlSubject())
	if _, err := s.client.Put(ctx, wire.LayoutInstances.Key(garbage.Namespace, in), string(value)); err != nil {
		return nil, fmt.Errorf("register the good worker: %w", err)
	}
	return g, nil
}

func (g *controlWorker) answer(m *nats.Msg, reply []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.extraReplies {
		m.Respond(b) // what is lost is missed when messages are counted
	}
	if g.extraReplies != nil {
		close(g.extraSent)
		g.extraReplies = nil
	}
	if m.Respond(reply) == nil {
		g.answered.Add(1)
	}
}

// mutter has these said at the next poll of the program, and waits for it.
func (g *controlWorker) sendExtra(ctx context.Context, m *instance, all [][]byte) error {
	done := make(chan struct{})
	g.mu.Lock()
	g.extraReplies, g.extraSent = all, done
	g.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-time.After(waitTimeout):
		return errors.New("the program does not poll")
	case <-m.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hit publishes a hit of it.
func (g *controlWorker) publishHit(nc *nats.Conn) error {
	b := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, uint64(controlID), 4*controlOverlap, controlOverlap)
	if err := nc.Publish(wire.HitRateSubject(garbage.Namespace), b); err != nil {
		return fmt.Errorf("publish a hit: %w", err)
	}
	g.hits++
	return nil
}

// check complains unless a page has of it what it has said.
func (g *controlWorker) check(p exposition) error {
	want := map[string]float64{
		"llm_worker_up": 1, "llm_kv_blocks_active": 10, "llm_kv_blocks_total": 1000, "llm_requests_active_slots": 1, "llm_kv_hit_rate_percent": 0.25,
	}
	if g.hits > 0 {
		want[islName], want[overlapName] = float64(4*controlOverlap*g.hits), float64(controlOverlap*g.hits)
	}
	for metric, v := range want {
		series := fmt.Sprintf(`%s{component=%q,endpoint=%q,worker_id="%d"}`, metric, garbage.Endpoint.Component, garbage.Endpoint.Name, uint64(controlID))
		if n, got := p.sum(series); n != 1 || got != v {
			return fmt.Errorf("%s has %d series with %v, want one with %v", series, n, got, v)
		}
	}
	return nil
}
