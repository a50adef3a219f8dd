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
	controlID      = 0x6b8b4567327b23c6 // changing a few bytes of a seed never makes this id
	controlOverlap = 7                  // blocks in one hit
)

// controlWorker is the worker whose reports are always valid. Its replies to polls can be
// accompanied by other messages.
type controlWorker struct {
	answered atomic.Uint64 // answered polls
	hits     int

	mu           sync.Mutex
	extraReplies [][]byte
	extraSent    chan struct{}
}

func controlService() string {
	return wire.ServiceName(wire.EraPlain, garbage.Namespace, garbage.Endpoint.Component)
}

func controlSubject() string { return wire.Subject(controlService(), garbage.Endpoint.Name, controlID) }

// newControlWorker registers the control worker and has it answer polls for as long as the
// environment's connections last.
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
		return nil, fmt.Errorf("register the control worker: %w", err)
	}
	return g, nil
}

func (g *controlWorker) answer(m *nats.Msg, reply []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.extraReplies {
		m.Respond(b) // if a message is lost, the check of the counts fails
	}
	if g.extraReplies != nil {
		close(g.extraSent)
		g.extraReplies = nil
	}
	if m.Respond(reply) == nil {
		g.answered.Add(1)
	}
}

// sendExtra sends these messages in reply to the next poll of the program, and waits for
// that poll.
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

// publishHit publishes one hit of the control worker.
func (g *controlWorker) publishHit(nc *nats.Conn) error {
	b := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, uint64(controlID), 4*controlOverlap, controlOverlap)
	if err := nc.Publish(wire.HitRateSubject(garbage.Namespace), b); err != nil {
		return fmt.Errorf("publish a hit: %w", err)
	}
	g.hits++
	return nil
}

// check returns an error unless the metricsText shows exactly what the control worker has
// reported.
func (g *controlWorker) check(p metricsText) error {
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
