package mock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// mockRun is a Run in its own goroutine.
type mockRun struct {
	cancel context.CancelCauseFunc
	done   chan error

	mu  sync.Mutex
	ids map[int]uint64 // of the workers, from OnRegistered
}

// start runs c until the test ends or stops it.
func start(t *testing.T, nc *nats.Conn, ec *clientv3.Client, c Config) *mockRun {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	r := &mockRun{cancel: cancel, done: make(chan error, 1), ids: map[int]uint64{}}
	c.OnRegistered = func(n int, in fleet.Instance) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids[n] = in.ID
	}
	go func() { r.done <- Run(ctx, nc, ec, c) }()
	t.Cleanup(func() { cancel(nil) })
	return r
}

// id waits until worker n is registered under another id than old, and returns its id. If old is
// 0, it returns any id.
func (r *mockRun) id(t *testing.T, n int, old uint64) (id uint64) {
	t.Helper()
	testutil.Until(t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		var ok bool
		if id, ok = r.ids[n]; !ok || id == old && old != 0 {
			return fmt.Errorf("worker %d is not registered under a new id: %v", n, r.ids)
		}
		return nil
	})
	return id
}

func (r *mockRun) stop(t *testing.T, cause error) {
	t.Helper()
	r.cancel(cause)
	select {
	case err := <-r.done:
		if err != nil {
			t.Error("Run:", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
}

// poll sends a stats poll and returns the replies of n workers.
func poll(t *testing.T, nc *nats.Conn, service string, n int) (replies []*nats.Msg) {
	t.Helper()
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := nc.PublishRequest(wire.StatsSubject(service), inbox, nil); err != nil {
		t.Fatal(err)
	}
	for len(replies) < n {
		m, err := sub.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatalf("reply %d of %d: %v", len(replies)+1, n, err)
		}
		replies = append(replies, m)
	}
	return replies
}

// answersPolls reports whether an instance of the service replies to stats polls.
func answersPolls(t *testing.T, nc *nats.Conn, service string) bool {
	t.Helper()
	_, err := nc.Request(wire.StatsSubject(service), nil, 10*time.Second)
	if err != nil && !errors.Is(err, nats.ErrNoResponders) {
		t.Fatal(err)
	}
	return err == nil
}

func backend(release string) Config {
	return Config{Namespace: "dynamo", Component: "backend", Endpoint: "generate", Release: release, Seed: 1}
}

func TestRunAnswersPollsOfEveryRelease(t *testing.T) {
	stack := devstacktest.Start(t)
	nc, ec := stack.Conn(t), stack.Client(t)
	for release, want := range map[string]struct{ service, key, idField, data string }{
		"0.1.0": {"dynamo_backend_020af9f2", "dynamo/components/backend/generate:%x", "lease_id", capturedLoads[1].data},
		"0.1.1": {"dynamo_backend_9ce3f3b7", "dynamo/components/backend/generate:%x", "lease_id", capturedLoads[1].data},
		"0.2.1": {"dynamo_backend", "dynamo/components/backend/generate:%x", "lease_id", capturedLoads[1].data},
		"0.3.0": {"dynamo_backend", "instances/dynamo/backend/generate:%x", "instance_id", capturedLoads[2].data},
		"0.5.1": {"dynamo_backend", "instances/dynamo/backend/generate:%x", "instance_id", capturedLoads[3].data},
	} {
		t.Run(release, func(t *testing.T) {
			c := backend(release)
			c.Load = func(int) fleet.Load {
				if release == "0.3.0" {
					return capturedLoads[2].load
				}
				return capturedLoads[1].load
			}
			r := start(t, nc, ec, c)
			id := r.id(t, 0, 0)
			subject := fmt.Sprintf("%s.generate-%x", want.service, id)

			checkReply(t, poll(t, nc, want.service, 1)[0], want.service, fmt.Sprintf("%s-generate-%x", want.service, id), subject, want.data)
			key := fmt.Sprintf(want.key, id)
			checkKey(t, ec, key, id, fmt.Sprintf(`{
  "component": "backend",
  "endpoint": "generate",
  "namespace": "dynamo",
  "%s": %d,
  "transport": {
    "nats_tcp": "%s"
  }
}`, want.idField, id, subject))

			r.stop(t, nil)
			checkGone(t, ec, key, id)
			if answersPolls(t, nc, want.service) {
				t.Error("replies after its end")
			}
		})
	}
}

func checkReply(t *testing.T, m *nats.Msg, service, name, subject, data string) {
	t.Helper()
	var got struct {
		Type, Name, ID, Version string
		Started                 time.Time
		Endpoints               []struct {
			Name, Subject string
			QueueGroup    string `json:"queue_group"`
			Data          json.RawMessage
		}
	}
	if err := json.Unmarshal(m.Data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Type != "io.nats.micro.v1.stats_response" || got.Name != service || got.Version != "0.0.1" || got.ID == "" || got.Started.IsZero() {
		t.Errorf("got %s", m.Data)
	}
	if len(got.Endpoints) != 1 {
		t.Fatalf("got %s, want one endpoint", m.Data)
	}
	e := got.Endpoints[0]
	if e.Name != name || e.Subject != subject || e.QueueGroup != "q" || string(e.Data) != data {
		t.Errorf("got %s\nwant %s on %s with %s", m.Data, name, subject, data)
	}
}

func checkKey(t *testing.T, ec *clientv3.Client, key string, id uint64, value string) {
	t.Helper()
	got, err := ec.Get(t.Context(), key)
	if err != nil || got.Count != 1 {
		t.Fatalf("key %s: got %v, %v", key, got, err)
	}
	if diff := cmp.Diff(value, string(got.Kvs[0].Value)); diff != "" {
		t.Error(diff)
	}
	if lease := uint64(got.Kvs[0].Lease); lease != id {
		t.Errorf("got the key on lease %x, want %x", lease, id)
	}
	if l, err := ec.TimeToLive(t.Context(), clientv3.LeaseID(id)); err != nil || l.GrantedTTL != 10 {
		t.Errorf("got %+v, %v; want a lease of 10 s", l, err)
	}
}

func checkGone(t *testing.T, ec *clientv3.Client, key string, id uint64) {
	t.Helper()
	if got, err := ec.Get(t.Context(), key); err != nil || got.Count != 0 {
		t.Errorf("key %s: got %v, %v; want none", key, got, err)
	}
	if l, err := ec.TimeToLive(t.Context(), clientv3.LeaseID(id)); err != nil || l.TTL != -1 {
		t.Errorf("got %+v, %v; want no lease", l, err)
	}
}

func TestRunRejectsRequests(t *testing.T) {
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	r := start(t, nc, stack.Client(t), backend(""))
	m, err := nc.Request(wire.Subject("dynamo_backend", "generate", r.id(t, 0, 0)), []byte("{}"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Nats-Service-Error-Code") != "501" || m.Header.Get("Nats-Service-Error") == "" {
		t.Errorf("got %v, want a service error", m.Header)
	}
}

func TestRunGivesEachWorkerALease(t *testing.T) {
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	c := backend("")
	c.Workers = 5
	r := start(t, nc, stack.Client(t), c)
	ids := map[uint64]bool{}
	for n := range c.Workers {
		ids[r.id(t, n, 0)] = true
	}
	for _, m := range poll(t, nc, "dynamo_backend", c.Workers) {
		reply, err := wire.ParseStatsReply(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		_, id, _ := wire.SplitSubject("dynamo_backend", reply.Endpoints[0].Subject, func(string) bool { return false })
		if !ids[id] {
			t.Errorf("%x is not registered or replied twice; registered are %v", id, ids)
		}
		delete(ids, id)
	}
}

func TestRunStaticWorkersDifferByReplyID(t *testing.T) {
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	c := backend("0.2.1")
	c.Workers = 2
	c.Load = func(int) fleet.Load { return capturedLoads[1].load }
	r := start(t, nc, nil, c)
	r.id(t, 0, 0)
	r.id(t, 1, 0)
	replies := poll(t, nc, "dynamo_backend", 2)
	ids := map[string]bool{}
	for _, m := range replies {
		checkReply(t, m, "dynamo_backend", "dynamo_backend-generate", "dynamo_backend.generate", capturedLoads[1].data)
		reply, _ := wire.ParseStatsReply(m.Data)
		ids[reply.ID] = true
	}
	if len(ids) != 2 {
		t.Errorf("got ids %v, want two", ids)
	}
	r.stop(t, nil)
	if answersPolls(t, nc, "dynamo_backend") {
		t.Error("replies after its end")
	}
}

func TestRunRejectsInvalidConfig(t *testing.T) {
	if err := Run(t.Context(), nil, nil, Config{}); err == nil {
		t.Error("ran without a namespace")
	}
}
