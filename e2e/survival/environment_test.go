//go:build real

package survival

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	service     = "dynamo_backend"
	instanceKey = "dynamo/components/metrics/instance"
)

// environment has the servers, the test's own connections to them, and the workers.
type environment struct {
	t    *testing.T
	nats []*server
	etcd []*server
	nc   *nats.Conn
	ec   *clientv3.Client

	interval string // between two polls, one of which a worker may miss
}

// newEnvironment starts a nats-server and an etcd.
func newEnvironment(t *testing.T, natsFlags ...string) *environment {
	t.Helper()
	n, e := natsServer(t, natsFlags...), etcdServers(t, 1)
	n.start()
	e[0].start()
	return connect(t, []*server{n}, e)
}

func connect(t *testing.T, nats, etcd []*server) *environment {
	t.Helper()
	return &environment{t: t, nats: nats, etcd: etcd, nc: dialNATS(t, urls(nats)), ec: devstacktest.EtcdClient(t, strings.Split(urls(etcd), ",")...), interval: "0.5"}
}

func urls(servers []*server) string {
	var all []string
	for _, s := range servers {
		all = append(all, s.url)
	}
	return strings.Join(all, ",")
}

func (f *environment) env() []string {
	return []string{"NATS_SERVER=" + urls(f.nats), "ETCD_ENDPOINTS=" + urls(f.etcd)}
}

// startMetrics starts the program on backend/generate.
func (f *environment) startMetrics(args ...string) *program {
	f.t.Helper()
	return f.startMetricsWith(nil, args...)
}

func (f *environment) startMetricsWith(prefix []string, args ...string) *program {
	f.t.Helper()
	return startProgram(f.t, f.env(), prefix, append([]string{"--component", "backend", "--endpoint", "generate", "--poll-interval", f.interval}, args...)...)
}

// worker has a registration without a lease, so that only the test ends it. It answers
// polls with the number of active blocks that the test sets.
type worker struct {
	env  *environment
	id   uint64
	load atomic.Uint64
}

func instance(id uint64) fleet.Instance {
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, ID: id}
}

// startWorker registers a worker that answers polls.
func (f *environment) startWorker(id, load uint64) *worker {
	f.t.Helper()
	w := &worker{env: f, id: id}
	w.load.Store(load)
	f.answerPolls(func() []byte { return statsReply(id, flatLoad(w.load.Load())) })
	f.register(f.ec, id)
	return w
}

// answerPolls answers each poll with the result of reply.
func (f *environment) answerPolls(reply func() []byte) {
	f.t.Helper()
	f.answerPollsWith(func(respond func([]byte)) { respond(reply()) })
}

// answerPollsWith calls answer for each poll, which sends any number of replies.
func (f *environment) answerPollsWith(answer func(respond func([]byte))) *nats.Subscription {
	f.t.Helper()
	sub, err := f.nc.Subscribe(wire.StatsSubject(service), func(m *nats.Msg) {
		answer(func(b []byte) { m.Respond(b) })
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.flush()
	return sub
}

func (f *environment) flush() {
	f.t.Helper()
	if err := f.nc.FlushTimeout(10 * time.Second); err != nil {
		f.t.Fatal(err)
	}
}

// instanceKeyOf and instanceValueOf are the key and value of a worker's registration.
func instanceKeyOf(id uint64) string { return wire.LayoutInstances.Key("dynamo", instance(id)) }

func instanceValueOf(id uint64) string {
	return string(wire.LayoutInstances.Value("dynamo", instance(id), wire.Subject(service, "generate", id)))
}

func (f *environment) register(ec *clientv3.Client, ids ...uint64) {
	f.t.Helper()
	f.commit(ec, ids, func(id uint64) clientv3.Op { return clientv3.OpPut(instanceKeyOf(id), instanceValueOf(id)) })
}

func (f *environment) deregister(ec *clientv3.Client, ids ...uint64) {
	f.t.Helper()
	f.commit(ec, ids, func(id uint64) clientv3.Op { return clientv3.OpDelete(instanceKeyOf(id)) })
}

// commit changes many keys, in transactions of the size that etcd allows.
func (f *environment) commit(ec *clientv3.Client, ids []uint64, op func(uint64) clientv3.Op) {
	f.t.Helper()
	for len(ids) > 0 {
		n := min(len(ids), 100)
		var ops []clientv3.Op
		for _, id := range ids[:n] {
			ops = append(ops, op(id))
		}
		ids = ids[n:]
		testutil.Until(f.t, func() error { // a member that has lost its leader refuses changes
			ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
			defer cancel()
			_, err := ec.Txn(ctx).Then(ops...).Commit()
			return err
		})
	}
}

// samplesOf returns the samples that the workers must have.
func samplesOf(workers ...*worker) samples {
	p := make(samples)
	for _, w := range workers {
		p[workerSeries(active, w.id)] = fmt.Sprint(w.load.Load())
		p[workerSeries(total, w.id)] = "1000"
		p[workerSeries("llm_worker_up", w.id)] = "1"
	}
	return p
}

// statsReply returns a worker's reply to a poll.
func statsReply(id uint64, data string) []byte { return statsReplyOf(service, id, data) }

func statsReplyOf(service string, id uint64, data string) []byte {
	subject := wire.Subject(service, "generate", id)
	return fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":"id-of-%d","endpoints":[{"name":%q,"subject":%q,"data":%s}]}`,
		service, id, subject, subject, data)
}

// flatLoad returns a load in the form of releases up to 0.2.1.
func flatLoad(active uint64) string {
	return fmt.Sprintf(`{"request_active_slots":1,"request_total_slots":8,"kv_active_blocks":%d,"kv_total_blocks":1000,"num_requests_waiting":0,"gpu_cache_usage_perc":0.5,"gpu_prefix_cache_hit_rate":0.25}`, active)
}

// hit publishes a hit-rate event, with four times as much input as overlap.
func (f *environment) hit(id uint64, overlap int) error {
	return f.nc.Publish(wire.HitRateSubject("dynamo"), fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, id, 4*overlap, overlap))
}

// router publishes hits of its workers continuously.
type router struct {
	env     *environment
	workers []*worker
	sent    []uint64 // blocks of overlap that the client accepted, by worker
	stopped chan struct{}
	once    sync.Once
	work    sync.WaitGroup
}

func (f *environment) startRouter(workers ...*worker) *router {
	r := &router{env: f, workers: workers, sent: make([]uint64, len(workers)), stopped: make(chan struct{})}
	r.work.Go(func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for n := 0; ; n++ {
			for i := range workers {
				r.hit(i, 1+n%5)
			}
			select {
			case <-ticker.C:
			case <-r.stopped:
				return
			}
		}
	})
	f.t.Cleanup(r.stop)
	return r
}

// hit publishes one hit of a worker. The client refuses it while no server is connected.
func (r *router) hit(worker, blocks int) {
	if r.env.hit(r.workers[worker].id, blocks) == nil {
		r.sent[worker] += uint64(blocks)
	}
}

func (r *router) stop() {
	r.once.Do(func() { close(r.stopped); r.work.Wait() })
}

// stopAndCheck stops the router, waits until the program has counted all events that it
// will ever receive, and checks that no event was counted twice, and that each later event
// counts.
func (r *router) stopAndCheck(m *program) {
	r.env.t.Helper()
	r.stop()
	// Events arrive in order. When the mark, which is larger than any other event, is
	// counted, no event is on its way.
	const mark = 1 << 30
	last := len(r.workers) - 1
	r.hit(last, mark)
	want := make(samples)
	m.waitFor(func(p samples) error {
		if n := p.number(workerSeries(overlap, r.workers[last].id)); n < mark {
			return fmt.Errorf("%v blocks counted, without the mark", n)
		}
		for i, w := range r.workers {
			counted := uint64(p.number(workerSeries(overlap, w.id)))
			if counted > r.sent[i] {
				r.env.t.Errorf("worker %d: %d blocks counted of %d that were sent", w.id, counted, r.sent[i])
			}
			want[workerSeries(overlap, w.id)], want[workerSeries(isl, w.id)] = decimal(counted+1000), decimal(4*(counted+1000))
		}
		return nil
	})
	for range 1000 {
		for i := range r.workers {
			r.hit(i, 1)
		}
	}
	r.env.flush()
	m.waitForSamples(want)
}

// decimal formats a number as /metrics does.
func decimal(n uint64) string { return strconv.FormatFloat(float64(n), 'g', -1, 64) }
