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

// stage is a NATS server, an etcd, and workers that do as they are told.
type environment struct {
	*devstacktest.Stack
	t    *testing.T
	nats *nats.Conn
	etcd *clientv3.Client
}

func newEnvironment(t *testing.T) *environment {
	t.Helper()
	process.Installed(t, "chromium", "chromium") // before anything is started in vain
	s := devstacktest.Start(t)
	return &environment{Stack: s, t: t, nats: s.Conn(t), etcd: s.Client(t)}
}

func (s *environment) environ() []string {
	return []string{"NATS_SERVER=" + s.NATS.URL(), "ETCD_ENDPOINTS=" + s.Etcd.Endpoint()}
}

// program is the metrics program, which can be started again at the same address.
type program struct {
	*process.Process
	env  *environment
	args []string
	url  string
}

// metrics starts the program. A tab that looks at it is best opened later: what is
// closed first is what was opened last, and a tab notes that its program is gone.
func (s *environment) startMetrics(args ...string) *program {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(process.FreeAddress(s.t))
	if !slices.Contains(args, "--poll-interval") {
		args = append(args, "--poll-interval", "0.1")
	}
	p := &program{env: s, url: "http://" + net.JoinHostPort(host, port), args: append(args, "--host", host, "--metrics-port", port)}
	p.start()
	return p
}

func (p *program) start() {
	p.env.t.Helper()
	p.Process = process.Start(p.env.t, p.env.environ(), filepath.Join(bin, "metrics"), p.args...)
	p.WaitForLine("Prometheus metrics server started")
}

// open starts the program, and a browser that opens its page with this fragment.
func (s *environment) openPage(fragment string, args ...string) *tab {
	s.t.Helper()
	p := s.startMetrics(args...)
	b := startChromium(s.t).newTab(s.t)
	b.open(p.url + "/" + fragment)
	return b
}

// get is what the program answers.
func (p *program) get(path string) string {
	p.env.t.Helper()
	resp, err := http.Get(p.url + path)
	must(p.env.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(p.env.t, err)
	return string(body)
}

// tells waits until the fleet as JSON has this text.
func (p *program) waitForFleet(want string) {
	p.env.t.Helper()
	testutil.Until(p.env.t, func() error {
		if got := p.get("/api/v1/fleet"); !strings.Contains(got, want) {
			return fmt.Errorf("%s is not in %s", want, got)
		}
		return nil
	})
}

// polls is how many polls have been done.
func (p *program) pollCount() (n int) {
	p.env.t.Helper()
	_, err := fmt.Sscan(process.ParseSamples(p.get("/metrics"))["dynamo_metrics_poll_duration_seconds_count"], &n)
	must(p.env.t, err)
	return n
}

// mocks starts mock workers.
func (s *environment) startMocks(args ...string) {
	s.t.Helper()
	process.Start(s.t, s.environ(), filepath.Join(bin, "mock_worker"), args...)
}

// worker is a worker of 0.5 that is registered, and answers polls as it is told.
type worker struct {
	env       *environment
	namespace string
	instance  fleet.Instance
	service   string
	data      atomic.Pointer[string]
	sub       *nats.Subscription
}

// worker starts one with so many percent of its KV cache in use.
func (s *environment) startWorker(component string, id uint64, percent int) *worker {
	s.t.Helper()
	return s.startWorkerIn("dynamo", component, id, percent)
}

func (s *environment) startWorkerIn(namespace, component string, id uint64, percent int) *worker {
	s.t.Helper()
	w := s.startUnregistered(namespace, component, id, percent)
	w.register()
	return w
}

// answering is a worker that is not registered: a static one, if its id is 0.
func (s *environment) startUnregistered(namespace, component string, id uint64, percent int) *worker {
	s.t.Helper()
	w := s.newWorker(namespace, component, id)
	w.setLoad(percent, 0)
	var err error
	w.sub, err = s.nats.Subscribe(wire.StatsSubject(w.service), func(m *nats.Msg) {
		subject := wire.Subject(w.service, w.instance.Name, id)
		m.Respond(fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":"id-of-%d","endpoints":[{"name":%q,"subject":%q,"data":%s}]}`,
			w.service, id, subject, subject, *w.data.Load()))
	})
	must(s.t, err)
	must(s.t, s.nats.Flush())
	return w
}

// ranks publishes the loads of so many ranks of a worker that is registered, again and
// again until the program has them.
func (s *environment) publishRanks(p *program, id uint64, n int) {
	s.t.Helper()
	testutil.Until(s.t, func() error {
		for rank := range n {
			must(s.t, s.nats.Publish("namespace.dynamo."+wire.TopicLoad, fmt.Appendf(nil, `{"worker_id":%d,"data":{"worker_stats":{"data_parallel_rank":%d,"request_active_slots":%d,`+
				`"request_total_slots":64,"num_requests_waiting":%d},"kv_stats":{"kv_active_blocks":%d,"kv_total_blocks":1000,"gpu_cache_usage_perc":%g}}}`,
				id, rank, 10+rank, rank, 100+100*rank, float64(1+rank)/10)))
		}
		must(s.t, s.nats.Flush())
		if last := fmt.Sprintf(`"key":"%d/%d"`, id, n-1); !strings.Contains(p.get("/api/v1/fleet"), last) {
			return fmt.Errorf("the fleet has no %s", last)
		}
		return nil
	})
}

// registered registers an instance that nothing was ever heard of.
func (s *environment) registerInstance(component string, id uint64) {
	s.t.Helper()
	s.newWorker("dynamo", component, id).register()
}

func (s *environment) newWorker(namespace, component string, id uint64) *worker {
	return &worker{env: s, namespace: namespace, service: wire.ServiceName(wire.EraPlain, namespace, component),
		instance: fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: "generate"}, ID: id}}
}

func (w *worker) register() {
	w.env.t.Helper()
	subject := wire.Subject(w.service, w.instance.Name, w.instance.ID)
	_, err := w.env.etcd.Put(w.env.t.Context(), wire.LayoutInstances.Key(w.namespace, w.instance), string(wire.LayoutInstances.Value(w.namespace, w.instance, subject)))
	must(w.env.t, err)
}

// load is what it answers from now on.
func (w *worker) setLoad(percent, waiting int) { w.setSlots(percent, percent*64/100, waiting) }

// slots says those in use by their number, of 64.
func (w *worker) setSlots(percent, slots, waiting int) {
	s := fmt.Sprintf(`{"kv_stats":{"kv_active_blocks":%d,"kv_total_blocks":10000,"gpu_cache_usage_perc":%g,"gpu_prefix_cache_hit_rate":0.25},`+
		`"worker_stats":{"request_active_slots":%d,"request_total_slots":64,"num_requests_waiting":%d}}`, percent*100, float64(percent)/100, slots, waiting)
	w.data.Store(&s)
}

// garble has it answer what cannot be read.
func (w *worker) answerMalformed() {
	s := `{"kv_stats":{"kv_active_blocks":"9731"}}`
	w.data.Store(&s)
}

// fallSilent has it stay registered, and answer no more.
func (w *worker) stopAnswering() {
	w.env.t.Helper()
	must(w.env.t, w.sub.Unsubscribe())
}

// loseKey has it answer on, and be registered no more.
func (w *worker) deregister() {
	w.env.t.Helper()
	_, err := w.env.etcd.Delete(w.env.t.Context(), wire.LayoutInstances.Key(w.namespace, w.instance))
	must(w.env.t, err)
}

// leave has it go as a worker goes that ends.
func (w *worker) stop() {
	w.env.t.Helper()
	w.deregister()
	w.stopAnswering()
}

// hit publishes a hit-rate event.
func (s *environment) publishHit(id uint64, isl, overlap int) {
	s.t.Helper()
	must(s.t, s.nats.Publish(wire.HitRateSubject("dynamo"), fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, id, isl, overlap)))
	must(s.t, s.nats.Flush())
}

// nth is the n-th id of a hand-made worker.
func workerID(n int) uint64 { return 0x694d0000_00001000 + uint64(n) }
