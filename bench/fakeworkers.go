package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// fakeWorkers are many workers of 0.5.1 that cost almost nothing. One lease holds the keys of
// all, and one subscription answers polls for all, with replies that are encoded in advance.
type fakeWorkers struct {
	namespace    string
	first        int // the number of the first worker
	n            int
	replies      [][]byte
	client       *clientv3.Client
	subscription *nats.Subscription
	lease        clientv3.LeaseID
	stop         context.CancelFunc
	renewal      sync.WaitGroup
	leaseLost    chan struct{} // closed when etcd no longer renews the lease
}

const (
	component = "backend"

	// firstWorker has the size of real lease ids.
	firstWorker = 0x7d7ba2096ef00000

	fakeWorkersTTL = 30  // seconds
	batch          = 128 // etcd's limit of operations in one transaction
)

// fakeWorkerEndpoints are the endpoints of each worker. The first one carries its load.
var fakeWorkerEndpoints = []string{"load_metrics", "generate"}

func workerID(n int) uint64 { return firstWorker + uint64(n) }

// instances returns the registrations of worker n.
func instances(n int) []fleet.Instance {
	var all []fleet.Instance
	for _, name := range fakeWorkerEndpoints {
		all = append(all, fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: name}, ID: workerID(n)})
	}
	return all
}

// startFakeWorkers registers n workers and has them answer polls until leave.
func startFakeWorkers(ctx context.Context, nc *nats.Conn, client *clientv3.Client, namespace string, n int) (*fakeWorkers, error) {
	c, err := registerFakeWorkers(ctx, client, namespace, 0, n)
	if err != nil {
		return nil, err
	}
	if err := c.answerPolls(nc); err != nil {
		c.leave()
		return nil, err
	}
	return c, nil
}

// registerFakeWorkers registers n workers, numbered from first. They do not answer yet.
func registerFakeWorkers(ctx context.Context, client *clientv3.Client, namespace string, first, n int) (*fakeWorkers, error) {
	lease, err := client.Grant(ctx, fakeWorkersTTL)
	if err != nil {
		return nil, fmt.Errorf("grant a lease: %w", err)
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &fakeWorkers{namespace: namespace, first: first, n: n, client: client, lease: lease.ID, stop: stop, leaseLost: make(chan struct{})}
	renewals, err := client.KeepAlive(renewing, lease.ID)
	if err == nil {
		c.renewal.Go(func() {
			defer close(c.leaseLost)
			for range renewals { // the client requires that the channel is drained
			}
		})
		err = c.register(ctx)
	}
	if err != nil {
		c.leave()
		return nil, fmt.Errorf("register %d workers: %w", n, err)
	}
	return c, nil
}

func (c *fakeWorkers) register(ctx context.Context) error {
	var puts []clientv3.Op
	flush := func() error {
		_, err := c.client.Txn(ctx).Then(puts...).Commit()
		puts = puts[:0]
		return err
	}
	service := wire.ServiceName(wire.EraPlain, c.namespace, component)
	for n := range c.n {
		for _, in := range instances(c.first + n) {
			value := wire.LayoutInstances.Value(c.namespace, in, wire.Subject(service, in.Name, in.ID))
			puts = append(puts, clientv3.OpPut(wire.LayoutInstances.Key(c.namespace, in), string(value), clientv3.WithLease(c.lease)))
		}
		if len(puts)+len(fakeWorkerEndpoints) > batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// answerPolls answers every poll with one message for each worker.
func (c *fakeWorkers) answerPolls(nc *nats.Conn) (err error) {
	service := wire.ServiceName(wire.EraPlain, c.namespace, component)
	for n := range c.n {
		c.replies = append(c.replies, statsReply(service, c.first+n))
	}
	c.subscription, err = nc.Subscribe(wire.StatsSubject(service), func(m *nats.Msg) {
		for _, reply := range c.replies {
			if nc.Publish(m.Reply, reply) != nil {
				return // the connection is closed
			}
		}
	})
	if err == nil {
		err = nc.FlushTimeout(waitTimeout)
	}
	if err != nil {
		return fmt.Errorf("have %d workers answer polls: %w", c.n, err)
	}
	return nil
}

// stopAnswering ends the replies to polls.
func (c *fakeWorkers) stopAnswering() {
	if c.subscription != nil {
		c.subscription.Unsubscribe() // fails if the connection is closed, or on the second call
	}
}

// leave ends the workers and deregisters them. It returns when both are done.
func (c *fakeWorkers) leave() {
	c.stopAnswering()
	c.stop()
	c.renewal.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c.client.Revoke(ctx, c.lease) // if this fails, the lease expires later
}

// statsReply returns the reply of worker n, in the captured form of 0.5.1.
func statsReply(service string, n int) []byte {
	b := fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":"mlCmLGawmKd9l2%08x","version":"0.0.1","started":"2026-11-23T17:39:24.477497021Z","endpoints":[`, service, n)
	data := fmt.Sprintf(`{"worker_stats":{"data_parallel_rank":null,"request_active_slots":7,"request_total_slots":64,"num_requests_waiting":9},"kv_stats":{"kv_active_blocks":%d,"kv_total_blocks":1000,"gpu_cache_usage_perc":0.25,"gpu_prefix_cache_hit_rate":0.5},"spec_decode_stats":null}`, n%1000)
	for i, name := range fakeWorkerEndpoints {
		if i > 0 {
			b, data = append(b, ','), "null"
		}
		b = fmt.Appendf(b, `{"name":"%s-%s-%x","subject":"%s.%s-%x","num_requests":0,"num_errors":0,"processing_time":0,"average_processing_time":0,"last_error":"","data":%s,"queue_group":"q"}`,
			service, name, workerID(n), service, name, workerID(n), data)
	}
	return append(b, "]}"...)
}
