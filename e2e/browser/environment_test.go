//go:build real

package browser

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// environment is a NATS server, an etcd, and workers that the test controls.
type environment struct {
	*devstacktest.Stack
	t    *testing.T
	nats *nats.Conn
	etcd *clientv3.Client
}

func newEnvironment(t *testing.T) *environment {
	t.Helper()
	process.Installed(t, "chromium", "chromium") // skips the test before the servers are started
	stack := devstacktest.Start(t)
	return &environment{Stack: stack, t: t, nats: stack.Conn(t), etcd: stack.Client(t)}
}

func (env *environment) environ() []string {
	return []string{"NATS_SERVER=" + env.NATS.URL(), "ETCD_ENDPOINTS=" + env.Etcd.Endpoint()}
}

// program is the metrics program, which can be restarted at the same address.
type program struct {
	*process.Process
	env  *environment
	args []string
	url  string
}

// startMetrics starts the program. Tabs that open its page must be created later, so that they
// are closed first: a tab reports an error when its program stops.
func (env *environment) startMetrics(args ...string) *program {
	env.t.Helper()
	host, port, _ := net.SplitHostPort(process.FreeAddress(env.t))
	if !slices.Contains(args, "--poll-interval") {
		args = append(args, "--poll-interval", "0.1")
	}
	p := &program{env: env, url: "http://" + net.JoinHostPort(host, port), args: append(args, "--host", host, "--metrics-port", port)}
	p.start()
	return p
}

func (p *program) start() {
	p.env.t.Helper()
	p.Process = process.Start(p.env.t, p.env.environ(), filepath.Join(bin, "metrics"), p.args...)
	p.WaitForLine("Prometheus metrics server started")
}

// openPage starts the program, and a browser that opens its page with this fragment.
func (env *environment) openPage(fragment string, args ...string) *tab {
	env.t.Helper()
	p := env.startMetrics(args...)
	b := startChromium(env.t).newTab(env.t)
	b.open(p.url + "/" + fragment)
	return b
}

// get returns the body of the program's response.
func (p *program) get(path string) string {
	p.env.t.Helper()
	resp, err := http.Get(p.url + path)
	must(p.env.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(p.env.t, err)
	return string(body)
}

// waitForFleet waits until the JSON of /api/v1/fleet contains this text.
func (p *program) waitForFleet(want string) {
	p.env.t.Helper()
	testutil.Until(p.env.t, func() error {
		if got := p.get("/api/v1/fleet"); !strings.Contains(got, want) {
			return fmt.Errorf("%s is not in %s", want, got)
		}
		return nil
	})
}

// pollCount returns how many polls the program has done.
func (p *program) pollCount() (n int) {
	p.env.t.Helper()
	_, err := fmt.Sscan(process.ParseSamples(p.get("/metrics"))["dynamo_metrics_poll_duration_seconds_count"], &n)
	must(p.env.t, err)
	return n
}

// startMocks starts mock workers.
func (env *environment) startMocks(args ...string) {
	env.t.Helper()
	process.Start(env.t, env.environ(), filepath.Join(bin, "mock_worker"), args...)
}

// worker is a worker of 0.5. It answers polls with what the test sets.
type worker struct {
	env       *environment
	namespace string
	instance  fleet.Instance
	service   string
	data      atomic.Pointer[string]
	sub       *nats.Subscription
}

// startWorker starts a registered worker with this percentage of its KV cache in use.
func (env *environment) startWorker(component string, id uint64, percent int) *worker {
	env.t.Helper()
	return env.startWorkerIn("dynamo", component, id, percent)
}

func (env *environment) startWorkerIn(namespace, component string, id uint64, percent int) *worker {
	env.t.Helper()
	w := env.startUnregistered(namespace, component, id, percent)
	w.register()
	return w
}

// startUnregistered starts a worker that answers polls without being registered. With the id 0 it is a static worker.
func (env *environment) startUnregistered(namespace, component string, id uint64, percent int) *worker {
	env.t.Helper()
	w := env.newWorker(namespace, component, id)
	w.setLoad(percent, 0)
	var err error
	w.sub, err = env.nats.Subscribe(wire.StatsSubject(w.service), func(m *nats.Msg) {
		subject := wire.Subject(w.service, w.instance.Name, id)
		m.Respond(fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":"id-of-%d","endpoints":[{"name":%q,"subject":%q,"data":%s}]}`,
			w.service, id, subject, subject, *w.data.Load()))
	})
	must(env.t, err)
	must(env.t, env.nats.Flush())
	return w
}

// publishRanks publishes the loads of n ranks of a registered worker, repeatedly until the
// program has received them.
func (env *environment) publishRanks(p *program, id uint64, n int) {
	env.t.Helper()
	testutil.Until(env.t, func() error {
		for rank := range n {
			must(env.t, env.nats.Publish("namespace.dynamo."+wire.TopicLoad, fmt.Appendf(nil, `{"worker_id":%d,"data":{"worker_stats":{"data_parallel_rank":%d,"request_active_slots":%d,`+
				`"request_total_slots":64,"num_requests_waiting":%d},"kv_stats":{"kv_active_blocks":%d,"kv_total_blocks":1000,"gpu_cache_usage_perc":%g}}}`,
				id, rank, 10+rank, rank, 100+100*rank, float64(1+rank)/10)))
		}
		must(env.t, env.nats.Flush())
		if last := fmt.Sprintf(`"key":"%d/%d"`, id, n-1); !strings.Contains(p.get("/api/v1/fleet"), last) {
			return fmt.Errorf("%s is not in the fleet", last)
		}
		return nil
	})
}

// registerInstance registers an instance that never answers.
func (env *environment) registerInstance(component string, id uint64) {
	env.t.Helper()
	env.newWorker("dynamo", component, id).register()
}

func (env *environment) newWorker(namespace, component string, id uint64) *worker {
	return &worker{env: env, namespace: namespace, service: wire.ServiceName(wire.EraPlain, namespace, component),
		instance: fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: "generate"}, ID: id}}
}

func (w *worker) register() {
	w.env.t.Helper()
	subject := wire.Subject(w.service, w.instance.Name, w.instance.ID)
	_, err := w.env.etcd.Put(w.env.t.Context(), wire.LayoutInstances.Key(w.namespace, w.instance), string(wire.LayoutInstances.Value(w.namespace, w.instance, subject)))
	must(w.env.t, err)
}

// setLoad sets the load that the worker answers with: KV use and slots in use in percent, and requests waiting.
func (w *worker) setLoad(percent, waiting int) { w.setSlots(percent, percent*64/100, waiting) }

// setSlots is setLoad with the number of slots in use, of 64.
func (w *worker) setSlots(percent, slots, waiting int) {
	data := fmt.Sprintf(`{"kv_stats":{"kv_active_blocks":%d,"kv_total_blocks":10000,"gpu_cache_usage_perc":%g,"gpu_prefix_cache_hit_rate":0.25},`+
		`"worker_stats":{"request_active_slots":%d,"request_total_slots":64,"num_requests_waiting":%d}}`, percent*100, float64(percent)/100, slots, waiting)
	w.data.Store(&data)
}

// answerMalformed makes the worker answer with data that cannot be decoded.
func (w *worker) answerMalformed() {
	data := `{"kv_stats":{"kv_active_blocks":"9731"}}`
	w.data.Store(&data)
}

// stopAnswering makes the worker silent: it stays registered, but answers no more polls.
func (w *worker) stopAnswering() {
	w.env.t.Helper()
	must(w.env.t, w.sub.Unsubscribe())
}

// deregister deletes the worker's key. The worker still answers.
func (w *worker) deregister() {
	w.env.t.Helper()
	_, err := w.env.etcd.Delete(w.env.t.Context(), wire.LayoutInstances.Key(w.namespace, w.instance))
	must(w.env.t, err)
}

// stop stops the worker, as a shutdown does.
func (w *worker) stop() {
	w.env.t.Helper()
	w.deregister()
	w.stopAnswering()
}

// publishHit publishes a hit-rate event of a request with isl blocks, of which overlap were cached.
func (env *environment) publishHit(id uint64, isl, overlap int) {
	env.t.Helper()
	must(env.t, env.nats.Publish(wire.HitRateSubject("dynamo"), fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, id, isl, overlap)))
	must(env.t, env.nats.Flush())
}

// workerID returns the id of the test's n-th worker.
func workerID(n int) uint64 { return 0x694d0000_00001000 + uint64(n) }
