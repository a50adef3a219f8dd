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

// These constants say how many made-up names each round of a soak sends. The names are in
// events, in poll replies, and in the registry, where they are added and removed.
const (
	soakMadeUp     = 2000 // endpoints that events name, and as many that poll replies name
	soakMadeUpBy   = 100  // permanent workers whose ids the events have
	soakRegistered = 200  // endpoints that are registered, have a load, and are deregistered

	// soakMaxSeries is more than the program can have: eleven series for each worker, two
	// for each forged id, and eight for each endpoint.
	soakMaxSeries = 40_000

	// firstMadeUpID is the first id that is registered at made-up endpoints.
	firstMadeUpID = 1 << 41
)

// madeUpEndpoint returns the nth made-up endpoint.
func madeUpEndpoint(n int) fleet.Endpoint {
	return fleet.Endpoint{Component: fmt.Sprint("made-", n), Name: "generate"}
}

// sendMadeUpNames sends the made-up names of one round.
func (k *soakRun) sendMadeUpNames(ctx context.Context) error {
	for i := range soakMadeUp {
		if err := k.publishLoad(madeUpEndpoint(k.rounds*soakMadeUp+i), workerID(i%soakMadeUpBy)); err != nil {
			return err
		}
	}
	k.expected.recordMadeUpLoads(soakMadeUp)
	if err := k.answerMadeUp(ctx); err != nil {
		return err
	}
	k.expected.recordMadeUpReplies(soakMadeUp)
	return k.registerAndLeave(ctx)
}

// publishLoad publishes a load of a worker at an endpoint.
func (k *soakRun) publishLoad(e fleet.Endpoint, id uint64) error {
	if err := k.nats.Publish(garbage.Subject(soakNamespace, e, wire.TopicLoad), garbage.LoadEvent(id, 0, 77)); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// answerMadeUp answers the next poll for endpoints that are not registered.
func (k *soakRun) answerMadeUp(ctx context.Context) error {
	service := wire.ServiceName(wire.EraPlain, soakNamespace, component)
	answered := make(chan struct{})
	var once sync.Once
	sub, err := k.nats.Subscribe(wire.StatsSubject(service), func(m *nats.Msg) {
		once.Do(func() {
			for i := range soakMadeUp {
				m.Respond(garbage.StatsReply(service, fmt.Sprint("made_", i), firstForgedID+uint64(i), "forged", 77)) // if a message is lost, the check of the counts fails
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

// registerAndLeave registers workers, each at another endpoint, publishes a load of each,
// and deregisters them.
func (k *soakRun) registerAndLeave(ctx context.Context) error {
	in := func(n int) fleet.Instance {
		n += k.rounds * soakRegistered
		return fleet.Instance{Endpoint: madeUpEndpoint(n), ID: firstMadeUpID + uint64(n)}
	}
	each := func(op func(fleet.Instance) clientv3.Op) error {
		for first := 0; first < soakRegistered; first += batch {
			var ops []clientv3.Op
			for n := first; n < min(first+batch, soakRegistered); n++ {
				ops = append(ops, op(in(n)))
			}
			if _, err := k.client.Txn(ctx).Then(ops...).Commit(); err != nil {
				return fmt.Errorf("change the registry: %w", err)
			}
		}
		return nil
	}
	shown := func(state string, want int) error {
		return k.waitFor(ctx, func(p metricsText) error {
			v, n := summarize(p), 0.0
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
	k.expected.registerWorkers(soakRegistered)
	if err := shown("silent", soakRegistered); err != nil {
		return err
	}
	for n := range soakRegistered {
		if err := k.publishLoad(in(n).Endpoint, in(n).ID); err != nil {
			return err
		}
	}
	if err := shown("answering", soakRegistered); err != nil {
		return err
	}
	if err := each(func(in fleet.Instance) clientv3.Op {
		return clientv3.OpDelete(garbage.Registration(soakNamespace, in).Key)
	}); err != nil {
		return err
	}
	k.expected.removeWorkers(soakRegistered)
	return shown("answering", 0)
}
