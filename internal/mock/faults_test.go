package mock

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func keyOf(id uint64) string {
	return wire.LayoutInstances.Key("dynamo", fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, ID: id})
}

func TestRunKilledLeavesKey(t *testing.T) {
	stack := devstacktest.Start(t)
	nc, ec := stack.Conn(t), stack.Client(t)
	r := start(t, nc, ec, backend(""))
	id := r.id(t, 0, 0)
	r.stop(t, ErrKilled)
	if answersPolls(t, nc, "dynamo_backend") {
		t.Error("replies after its end")
	}
	got, err := ec.Get(t.Context(), keyOf(id))
	if err != nil || got.Count != 1 {
		t.Errorf("key: got %v, %v; want it to remain until the lease expires", got, err)
	}
}

func TestRunGetsNewLeaseAfterEtcdLoss(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	nc, ec := stack.Conn(t), stack.Client(t)
	log, logged := testutil.NewLog()
	c := backend("")
	c.Log = log
	r := start(t, nc, ec, c)
	first := r.id(t, 0, 0)
	if !answersPolls(t, nc, "dynamo_backend") {
		t.Fatal("does not reply")
	}

	stack.StopEtcd()
	stack.StartEmptyEtcd(t)
	second := r.id(t, 0, first)
	if got, err := ec.Get(t.Context(), keyOf(second)); err != nil || got.Count != 1 {
		t.Errorf("key of the new lease: got %v, %v", got, err)
	}
	testutil.Until(t, func() error { // the service of the old id may still be stopping
		m := poll(t, nc, "dynamo_backend", 1)[0]
		if !strings.Contains(string(m.Data), wire.HexID(second)) {
			return fmt.Errorf("replies %s, want %x", m.Data, second)
		}
		return nil
	})
	if n := logged.Count("lost its lease"); n != 1 {
		t.Errorf("logged %d times that the lease was lost:\n%s", n, logged)
	}
	r.stop(t, nil)
}

func TestRunKeepsLeaseOverEtcdRestart(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	nc, ec := stack.Conn(t), stack.Client(t)
	r := start(t, nc, ec, backend(""))
	id := r.id(t, 0, 0)
	stack.StopEtcd()
	if !answersPolls(t, nc, "dynamo_backend") {
		t.Error("does not reply while etcd is down")
	}
	stack.StartEtcd(t)
	// The lease has been renewed when its remaining time has grown.
	var least int64 = shortLease
	testutil.Until(t, func() error {
		l, err := ec.TimeToLive(t.Context(), clientv3.LeaseID(id))
		if err != nil {
			return err
		}
		renewed := l.TTL > least
		least = min(least, l.TTL)
		if !renewed {
			return fmt.Errorf("lease %x has %d s left and was not renewed", id, l.TTL)
		}
		return nil
	})
	r.stop(t, nil)
	checkGone(t, ec, keyOf(id), id)
}

func TestRunSurvivesNATSRestart(t *testing.T) {
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	log, logged := testutil.NewLog()
	c := backend("")
	c.Log, c.EventInterval = log, time.Millisecond
	r := start(t, nc, stack.Client(t), c)
	r.id(t, 0, 0)
	events, err := stack.Conn(t).SubscribeSync(wire.HitRateSubject("dynamo"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.NextMsg(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	stack.StopNATS()
	testutil.Until(t, func() error {
		if nc.IsConnected() {
			return fmt.Errorf("still connected")
		}
		return nil
	})
	before := logged.String()
	stack.StartNATS(t)
	testutil.Until(t, func() error {
		if !nc.IsConnected() {
			return fmt.Errorf("not connected")
		}
		return nil
	})
	if !answersPolls(t, nc, "dynamo_backend") {
		t.Error("does not reply")
	}
	for { // discard the events from before the restart
		if n, _, _ := events.Pending(); n == 0 {
			break
		}
		_, _ = events.NextMsg(time.Second)
	}
	if _, err := events.NextMsg(10 * time.Second); err != nil {
		t.Error("no events after the restart:", err)
	}
	if logged.String() != before {
		t.Errorf("lost events were logged:\n%s", logged)
	}
	r.stop(t, nil)
}

func TestRunEndsQuicklyWithoutServers(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	log, logged := testutil.NewLog()
	c := backend("")
	c.Workers, c.Log = 2, log
	r := start(t, stack.Conn(t), stack.Client(t), c)
	r.id(t, 0, 0)
	r.id(t, 1, 0)
	stack.StopEtcd()
	stack.StopNATS()
	began := time.Now()
	r.stop(t, nil)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	if logged.Count("\n") != 1 || logged.Count("Failed to deregister") == 0 || logged.Count("workers=2") == 0 {
		t.Errorf("got %q, want one line for both", logged)
	}
}

func TestRunEndsOnClosedConnections(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	c := backend("")
	c.EventInterval = time.Millisecond
	r := start(t, nc, stack.Client(t), c)
	r.id(t, 0, 0)
	nc.Close()
	if err := <-r.done; err == nil || !strings.Contains(err.Error(), "connection closed") {
		t.Errorf("closed NATS connection: got %v", err)
	}
	ec := stack.Client(t)
	r = start(t, stack.Conn(t), ec, backend(""))
	r.id(t, 0, 0)
	ec.Close()
	if err := <-r.done; err == nil {
		t.Error("closed etcd client: Run ended without an error")
	}
}

func TestHitEventsAreTheOriginals(t *testing.T) {
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	c := backend("")
	c.Workers, c.EventInterval = 3, time.Millisecond
	events := subscribeHits(t, nc)
	start(t, nc, stack.Client(t), c)
	var worker uint64
	for range 50 {
		e := nextHit(t, events)
		if worker == 0 {
			worker = e.WorkerID
		}
		if e.WorkerID != worker || worker < 1 || worker > 1000 || e.ISL > 100 || e.Overlap > e.ISL {
			t.Fatalf("got %+v, want one worker of 1 to 1000, isl up to 100, overlap up to isl", e)
		}
	}
}

func TestHitEventsCorrelatedNameTheWorkers(t *testing.T) {
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	c := backend("")
	c.Workers, c.EventInterval, c.Correlated = 3, time.Millisecond, true
	events := subscribeHits(t, nc)
	r := start(t, nc, stack.Client(t), c)
	missing := map[uint64]bool{}
	for n := range c.Workers {
		missing[r.id(t, n, 0)] = true
	}
	for len(missing) > 0 {
		e := nextHit(t, events)
		delete(missing, e.WorkerID)
		if e.ISL > 100 || e.Overlap > e.ISL {
			t.Fatalf("got %+v", e)
		}
	}
}

// hitEvent is a hit-rate event, decoded strictly.
type hitEvent struct {
	WorkerID uint64 `json:"worker_id"`
	ISL      uint64 `json:"isl_blocks"`
	Overlap  uint64 `json:"overlap_blocks"`
}

func subscribeHits(t *testing.T, nc *nats.Conn) *nats.Subscription {
	t.Helper()
	sub, err := nc.SubscribeSync("namespace.dynamo.kv-hit-rate")
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func nextHit(t *testing.T, sub *nats.Subscription) (e hitEvent) {
	t.Helper()
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(m.Data)))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%s: %v", m.Data, err)
	}
	return e
}
