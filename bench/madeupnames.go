package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Forged names, of which a round of a soak has so many. They come in events and answers, and
// in the registry, where they come and go.
const (
	soakNames     = 2000 // endpoints that events name, and as many that answers name
	soakNamed     = 100  // workers that stay, in whose name the events are
	soakEndpoints = 200  // that are registered, have a load, and go

	// soakLines is more series than a page can have: eleven of each worker, two of each
	// forged id, and eight of each endpoint.
	soakLines = 40_000

	// firstNamed are the ids that are registered at them.
	firstNamed = 1 << 41
)

// made is an endpoint that is made up.
func made(n int) fleet.Endpoint {
	return fleet.Endpoint{Component: fmt.Sprint("made-", n), Name: "generate"}
}

// nameAll sends the names of a round.
func (k *soaking) nameAll(ctx context.Context) error {
	for i := range soakNames {
		if err := k.load(made(k.rounds*soakNames+i), workerID(i%soakNamed)); err != nil {
			return err
		}
	}
	k.ledger.named(soakNames)
	if err := k.answerForged(ctx); err != nil {
		return err
	}
	k.ledger.answered(soakNames)
	return k.register(ctx)
}

// load publishes a load of a worker at an endpoint.
func (k *soaking) load(e fleet.Endpoint, id uint64) error {
	if err := k.nats.Publish(garbage.Subject(soakNamespace, e, wire.TopicLoad), garbage.LoadEvent(id, 0, 77)); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// answerForged has the next poll answered for endpoints that are not registered.
func (k *soaking) answerForged(ctx context.Context) error {
	service := wire.ServiceName(wire.EraPlain, soakNamespace, component)
	answered := make(chan struct{})
	var once sync.Once
	sub, err := k.nats.Subscribe(wire.StatsSubject(service), func(m *nats.Msg) {
		once.Do(func() {
			for i := range soakNames {
				m.Respond(garbage.StatsReply(service, fmt.Sprint("made_", i), firstForged+uint64(i), "forged", 77)) // what is lost is missed when they are counted
			}
			close(answered)
		})
	})
	if err != nil {
		return fmt.Errorf("answer a poll: %w", err)
	}
	defer sub.Unsubscribe()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// register has workers come, each at another endpoint, have a load there, and go.
func (k *soaking) register(ctx context.Context) error {
	in := func(n int) fleet.Instance {
		n += k.rounds * soakEndpoints
		return fleet.Instance{Endpoint: made(n), ID: firstNamed + uint64(n)}
	}
	each := func(op func(fleet.Instance) clientv3.Op) error {
		for first := 0; first < soakEndpoints; first += batch {
			var ops []clientv3.Op
			for n := first; n < min(first+batch, soakEndpoints); n++ {
				ops = append(ops, op(in(n)))
			}
			if _, err := k.client.Txn(ctx).Then(ops...).Commit(); err != nil {
				return fmt.Errorf("change the registry: %w", err)
			}
		}
		return nil
	}
	shown := func(state string, want int) error {
		return k.shows(ctx, func(p page) error {
			v, n := look(p), 0.0
			for series, count := range v.series {
				if strings.HasPrefix(series, `llm_workers{component="made-`) && strings.Contains(series, fmt.Sprintf("state=%q", state)) {
					n += count
				}
			}
			if n != float64(want) {
				return fmt.Errorf("%.0f workers of made-up endpoints are %s, want %d", n, state, want)
			}
			return nil
		})
	}
	if err := each(func(in fleet.Instance) clientv3.Op {
		e := garbage.Registration(soakNamespace, in)
		return clientv3.OpPut(e.Key, e.Value)
	}); err != nil {
		return err
	}
	k.ledger.register(soakEndpoints)
	if err := shown("silent", soakEndpoints); err != nil {
		return err
	}
	for n := range soakEndpoints {
		if err := k.load(in(n).Endpoint, in(n).ID); err != nil {
			return err
		}
	}
	if err := shown("answering", soakEndpoints); err != nil {
		return err
	}
	if err := each(func(in fleet.Instance) clientv3.Op {
		return clientv3.OpDelete(garbage.Registration(soakNamespace, in).Key)
	}); err != nil {
		return err
	}
	k.ledger.leave(soakEndpoints)
	return shown("answering", 0)
}
