package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// stack is a NATS server and an etcd, with the test's own connections to them.
type stack struct {
	*devstacktest.Stack
	t    *testing.T
	nats *nats.Conn
	etcd *clientv3.Client
}

func newStack(t *testing.T) *stack {
	t.Helper()
	s := devstacktest.Start(t)
	return &stack{Stack: s, t: t, nats: s.Conn(t), etcd: s.Client(t)}
}

// env returns the variables with the addresses of the servers.
func (s *stack) env() []string {
	return []string{"NATS_SERVER=" + s.NATS.URL(), "ETCD_ENDPOINTS=" + s.Etcd.Endpoint()}
}

// server is the metrics program in server mode.
type server struct {
	*process.Process
	t   *testing.T
	url string
}

// metrics starts the program on a free port.
func (s *stack) metrics(args ...string) *server {
	s.t.Helper()
	return serve(s.t, s.env(), args...)
}

func serve(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	port := freePort(t)
	args = append([]string{"--host", "127.0.0.1", "--metrics-port", port}, args...)
	return &server{start(t, "metrics", env, args...), t, "http://127.0.0.1:" + port}
}

// samples are the values in a scrape of /metrics, as they are written, by series.
type samples map[string]string

func (v *server) scrape() (samples, error) {
	status, body := get(v.url + "/metrics")
	if status != 200 {
		return nil, fmt.Errorf("GET /metrics: %d %s", status, body)
	}
	return process.ParseSamples(body), nil
}

// filter returns the samples whose series contain all of these texts.
func (p samples) filter(texts ...string) samples {
	part := make(samples)
series:
	for s, v := range p {
		for _, text := range texts {
			if !strings.Contains(s, text) {
				continue series
			}
		}
		part[s] = v
	}
	return part
}

// waitFor waits for a scrape for which check returns nil.
func (v *server) waitFor(check func(samples) error) {
	v.t.Helper()
	testutil.Until(v.t, func() error {
		p, err := v.scrape()
		if err != nil {
			return err
		}
		return check(p)
	})
}

// waitForSamples waits until these series have these values. An empty value means that the
// series is absent.
func (v *server) waitForSamples(want samples) {
	v.t.Helper()
	v.waitFor(func(p samples) error { return p.match(want) })
}

func (p samples) match(want samples) error {
	for s, value := range want {
		if p[s] != value {
			return fmt.Errorf("%s is %q, want %q", s, p[s], value)
		}
	}
	return nil
}

// waitUntilReady waits until the program is ready.
func (v *server) waitUntilReady() {
	v.t.Helper()
	testutil.Until(v.t, func() error {
		if status, body := get(v.url + "/-/ready?strict=true"); status != 200 {
			return fmt.Errorf("GET /-/ready?strict=true: %d %s", status, body)
		}
		return nil
	})
}

// register puts the key of an endpoint into etcd, as a worker of that layout does.
func (s *stack) register(l wire.Layout, in fleet.Instance) {
	s.t.Helper()
	subject := wire.Subject(wire.ServiceName(wire.EraPlain, "dynamo", in.Component), in.Name, in.ID)
	_, err := s.etcd.Put(s.t.Context(), l.Key("dynamo", in), string(l.Value("dynamo", in, subject)))
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) deregister(l wire.Layout, in fleet.Instance) {
	s.t.Helper()
	if _, err := s.etcd.Delete(s.t.Context(), l.Key("dynamo", in)); err != nil {
		s.t.Fatal(err)
	}
}

// responder answers every stats poll of a service with the same reply, as a worker does,
// until it is unsubscribed.
func (s *stack) responder(service string, reply []byte) *nats.Subscription {
	s.t.Helper()
	sub, err := s.nats.Subscribe(wire.StatsSubject(service), func(m *nats.Msg) { m.Respond(reply) })
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.nats.Flush(); err != nil {
		s.t.Fatal(err)
	}
	return sub
}

// reply returns the stats reply of one worker with one endpoint.
func reply(service, endpoint string, lease uint64, data string) []byte {
	subject := wire.Subject(service, endpoint, lease)
	return fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":"id-of-%d","endpoints":[{"name":%q,"subject":%q,"data":%s}]}`,
		service, lease, subject, subject, data)
}

// flatLoad returns a load in the form of releases up to 0.2.1.
func flatLoad(active, total int) string {
	return fmt.Sprintf(`{"request_active_slots":1,"request_total_slots":8,"kv_active_blocks":%d,"kv_total_blocks":%d,"num_requests_waiting":0,"gpu_cache_usage_perc":0.5,"gpu_prefix_cache_hit_rate":0.25}`, active, total)
}

// hit publishes a hit-rate event.
func (s *stack) hit(worker uint64, isl, overlap int) {
	s.t.Helper()
	event := fmt.Sprintf(`{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, worker, isl, overlap)
	if err := s.nats.Publish(wire.HitRateSubject("dynamo"), []byte(event)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.nats.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// endLease ends a lease now, unless it has already ended: a program revokes the lease of a
// key that it has lost.
func (s *stack) endLease(lease clientv3.LeaseID) {
	s.t.Helper()
	if _, err := s.etcd.Revoke(s.t.Context(), lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.t.Fatal(err)
	}
}

// key returns the value of an etcd key, or "" if it does not exist.
func (s *stack) key(ctx context.Context, key string) string {
	s.t.Helper()
	got, err := s.etcd.Get(ctx, key)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return ""
	}
	return string(got.Kvs[0].Value)
}

// workerSeries is the series of a metric of one worker of backend.
func workerSeries(metric, endpoint string, id uint64) string {
	return fmt.Sprintf(`%s{component="backend",endpoint=%q,worker_id="%d"}`, metric, endpoint, id)
}

// workersSeries is the series of llm_workers of an endpoint of backend.
func workersSeries(endpoint, state string) string {
	return fmt.Sprintf(`llm_workers{component="backend",endpoint=%q,state=%q}`, endpoint, state)
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
