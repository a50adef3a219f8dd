package exposition

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire/wiretest"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// bus is a connection to a NATS server of the test, and a subscription to all subjects.
type bus struct {
	conn   *nats.Conn
	events *nats.Subscription
}

func newBus(t *testing.T, maxPayload int32) *bus {
	t.Helper()
	s, err := devstack.NATS(devstack.NATSConfig{
		Dir: t.TempDir(),
		Tune: func(o *server.Options) {
			if maxPayload > 0 {
				o.MaxPayload = maxPayload
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	conn, err := nats.Connect(s.URL(), nats.NoReconnect(), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	events, err := conn.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	return &bus{conn, events}
}

// published returns the events, by subject, that a call publishes.
func (b *bus) published(t *testing.T, publish func()) map[string]any {
	t.Helper()
	publish()
	const last = "test.last" // arrives after all events
	if err := b.conn.Publish(last, nil); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]any)
	for {
		m, err := b.events.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == last {
			return all
		}
		if _, twice := all[m.Subject]; twice {
			t.Errorf("two events on %s", m.Subject)
		}
		all[m.Subject] = decoded(t, m.Data)
	}
}

func decoded(t *testing.T, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

func TestL2CEventMatchesOriginal(t *testing.T) {
	b := newBus(t, 0)
	log, logs := testutil.NewDebugLog()
	l := &L2C{Fleet: wiretest.Original(t), Namespace: "dynamo", Conn: b.conn, Log: log}
	subject := strings.TrimSpace(string(testutil.Captured(t, "original", "l2c_subject.txt")))
	want := map[string]any{subject: decoded(t, testutil.Captured(t, "original", "l2c.json"))}
	testutil.Equal(t, "events", b.published(t, func() { l.Publish() }), want)
	testutil.Equal(t, "events of the next poll", b.published(t, func() { l.Publish() }), want)
	testutil.Equal(t, "lines of the log", logs.Lines(""), nil)
}

func TestL2CEventsAreOnePerEndpoint(t *testing.T) {
	b := newBus(t, 0)
	f := fleettest.New(fleettest.Everything, true)
	log, _ := testutil.NewDebugLog()
	l := &L2C{Fleet: f, Namespace: "dynamo", Conn: b.conn, Log: log}
	testutil.Equal(t, "events of an empty fleet", b.published(t, func() { l.Publish() }), map[string]any{})

	backend, spec := wiretest.OriginalAnswers(t)[1], testutil.Captured(t, "0.5.1", "edge", "spec_and_rank.json")
	malformed := replaced(t, wiretest.OriginalAnswers(t)[0], `"kv_active_blocks":10`, `"kv_active_blocks":"many"`)
	wiretest.RegisterAll(t, f, "backend", backend, malformed)
	wiretest.RegisterAll(t, f, "spec", spec)
	f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 1}, fleet.Registration{NATS: true}) // silent
	f.RecordHit(977, 3, 1)
	wiretest.Poll(t, f, "backend", backend, malformed)
	wiretest.Poll(t, f, "spec", spec)
	testutil.Equal(t, "events", b.published(t, func() { l.Publish() }), map[string]any{
		"namespace.dynamo.l2c.backend.load_metrics": decoded(t, []byte(`{
			"endpoints": {"9041998838276177458": {
				"name": "worker-9041998838276177458",
				"subject": "dynamo_backend_9ce3f3b7.load_metrics-7d7ba2096ef23e32",
				"data": {
					"request_active_slots": 3, "request_total_slots": 16, "kv_active_blocks": 40, "kv_total_blocks": 100,
					"num_requests_waiting": 2, "gpu_cache_usage_perc": 0.4, "gpu_prefix_cache_hit_rate": 0.25
				}
			}},
			"load_avg": 40, "load_std": 0}`)),
		"namespace.dynamo.l2c.spec.load_metrics": decoded(t, []byte(`{
			"endpoints": {"9041998838276179077": {
				"name": "worker-9041998838276179077",
				"subject": "edge_spec.load_metrics-7d7ba2096ef24485",
				"data": {
					"request_active_slots": 3, "request_total_slots": 16, "kv_active_blocks": 40, "kv_total_blocks": 100,
					"num_requests_waiting": 2, "gpu_cache_usage_perc": 0.4, "gpu_prefix_cache_hit_rate": 0.25
				}
			}},
			"load_avg": 40, "load_std": 0}`)),
	})
}

// The original crashed in this case.
func TestL2CEventThatIsTooLargeIsNotSent(t *testing.T) {
	b := newBus(t, 512)
	f := wiretest.Original(t)
	log, logs := testutil.NewDebugLog()
	l := &L2C{Fleet: f, Namespace: "dynamo", Conn: b.conn, Log: log}
	for range 3 {
		testutil.Equal(t, "events", b.published(t, func() { l.Publish() }), map[string]any{})
	}
	testutil.Equal(t, "dropped", f.Stats.Dropped(stats.OverMaxBytes), uint64(3))
	testutil.Equal(t, "warnings", len(logs.Lines("level=WARN", "max_payload", "namespace.dynamo.l2c.backend.load_metrics", "max_payload=512")), 1)
	testutil.Equal(t, "lines of the log", len(logs.Lines("")), 1)
	if !b.conn.IsConnected() {
		t.Error("the connection is lost")
	}

	// Once the fleet is smaller its event fits.
	f.Sync(fleet.Listing{Instances: map[string]fleet.InstanceEntry{
		"": {Instance: fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 9041998838276177458}, Registration: fleet.Registration{NATS: true}},
	}})
	testutil.Equal(t, "events", len(b.published(t, func() { l.Publish() })), 1)
}

func TestL2CLogsFailureOnce(t *testing.T) {
	b := newBus(t, 0)
	f := wiretest.Original(t)
	log, logs := testutil.NewDebugLog()
	l := &L2C{Fleet: f, Namespace: "dynamo", Conn: b.conn, Log: log}
	b.conn.Close()
	for range 3 {
		l.Publish()
	}
	testutil.Equal(t, "warnings", len(logs.Lines("level=WARN", "Failed to publish the l2c event", "connection closed")), 1)
	testutil.Equal(t, "lines of the log", len(logs.Lines("")), 1)
	testutil.Equal(t, "events dropped for their size", f.Stats.Dropped(stats.OverMaxBytes), uint64(0))
}

// An l2c event needs no histograms.
func TestL2CCopiesNoHistograms(t *testing.T) {
	b := newBus(t, 0)
	f := wiretest.Original(t)
	const id = 9041998838276177456 // the first worker
	f.RecordForwardPass(fleet.Origin{Endpoint: fleettest.LoadMetrics, Worker: id}, fleet.Pass{Counter: 1, Seconds: 0.02})
	f.RecordRequest(fleet.Request{Prefill: fleet.Some[uint64](id), Decode: fleet.Some[uint64](id), FirstToken: fleet.Some(0.1)})
	whole := f.Snapshot()
	log, _ := testutil.NewDebugLog()
	l := &L2C{Fleet: f, Namespace: "dynamo", Conn: b.conn, Log: log}
	testutil.Equal(t, "events", len(b.published(t, func() { l.Publish() })), 1)
	passes := func(s *fleet.Snapshot) (n int) {
		for _, w := range s.Workers {
			n += len(w.Passes.V.Seconds.Counts)
		}
		return n
	}
	if whole.Endpoints[0].Requests == nil || passes(&whole) == 0 {
		t.Fatal("the fleet has no histograms")
	}
	if n := passes(&l.snapshot); l.snapshot.Endpoints[0].Requests != nil || n > 0 {
		t.Errorf("the snapshot has histograms: %v, and %d counts of passes", l.snapshot.Endpoints[0].Requests, n)
	}
}
