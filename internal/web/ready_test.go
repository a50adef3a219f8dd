package web

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// probe compares the responses to readiness probes, without and with strict.
func probe(t *testing.T, h http.Handler, plain, strict string) {
	t.Helper()
	for query, want := range map[string]string{"": plain, "?strict=false": plain, "?strict=true": strict} {
		code := http.StatusOK
		if len(want) >= 9 && want[:9] == "not ready" {
			code = http.StatusServiceUnavailable
		}
		for _, path := range []string{"/-/ready", "/health"} {
			w := testutil.Get(t, h, path+query)
			testutil.Equal(t, path+query, w.Body.String(), want+"\n")
			testutil.Equal(t, path+query, w.Code, code)
		}
	}
	testutil.Equal(t, "/live", testutil.Get(t, h, "/live").Code, http.StatusOK)
	testutil.Equal(t, "/metrics", testutil.Get(t, h, "/metrics").Code, http.StatusOK)
}

// At the start, the program waits for its inputs, and names those that are missing.
func TestReadyAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.New(fleet.Target(fleettest.LoadMetrics), true)
		h := handler(f)
		notReady := func(missing string) {
			t.Helper()
			probe(t, h, "not ready: "+missing, "not ready: "+missing)
		}
		st := &f.Stats
		st.Etcd.MarkUsed()
		st.NATS.MarkUsed()
		st.ZMQ.MarkUsed()
		notReady("etcd is not connected, no ZMQ publisher is connected")
		st.ZMQ.SetConnected(true)
		notReady("etcd is not connected")
		// NATS counts as an input as soon as there is a worker that is polled.
		f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 1}, fleet.Registration{NATS: true})
		notReady("etcd is not connected, NATS is not connected, no poll has completed yet")
		st.Etcd.SetConnected(true)
		notReady("NATS is not connected, no poll has completed yet")
		st.NATS.SetConnected(true)
		notReady("no poll has completed yet")
		st.RecordPoll(stats.PollError, 0)
		notReady("no poll has completed yet")
		st.RecordPoll(stats.PollEmpty, time.Second)
		probe(t, h, "ready", "ready")
	})
	synctest.Test(t, func(t *testing.T) { // no worker uses NATS
		f := fleettest.New(fleet.Target(fleettest.LoadMetrics), true)
		f.Stats.NATS.MarkUsed()
		f.Stats.Etcd.MarkUsed()
		f.Stats.Etcd.SetConnected(true)
		probe(t, handler(f), "ready", "ready")
	})
	synctest.Test(t, func(t *testing.T) { // there is no registry
		f := fleettest.New(fleet.Target(fleettest.LoadMetrics), false)
		f.Stats.NATS.MarkUsed()
		f.Stats.NATS.SetConnected(true)
		f.Stats.RecordPoll(stats.PollEmpty, time.Second)
		probe(t, handler(f), "ready", "ready")
	})
}

// An input that stays missing does not hide what the other inputs report.
func TestReadyAfterWaitingForInput(t *testing.T) {
	for name, c := range map[string]struct {
		use     func(f *fleet.Fleet)
		missing string
	}{
		"nats": {func(f *fleet.Fleet) {
			f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 1}, fleet.Registration{NATS: true})
			f.Stats.NATS.MarkUsed()
		}, "NATS is not connected, no poll has completed yet"},
		"a poll": {func(f *fleet.Fleet) {
			f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 1}, fleet.Registration{NATS: true})
			f.Stats.NATS.MarkUsed()
			f.Stats.NATS.SetConnected(true)
		}, "no poll has completed yet"},
		"publishers": {func(f *fleet.Fleet) { f.Stats.ZMQ.MarkUsed() }, "no ZMQ publisher is connected"},
		"etcd":       {func(f *fleet.Fleet) { f.Stats.Etcd.MarkUsed() }, "etcd is not connected"},
		"files":      {func(f *fleet.Fleet) { f.Stats.Files.MarkUsed() }, "the directory of workers cannot be read"},
		"kubernetes": {func(f *fleet.Fleet) { f.Stats.Kubernetes.MarkUsed() }, "the Kubernetes API cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fleettest.New(fleet.Target(fleettest.LoadMetrics), true)
				h := handler(f)
				c.use(f)
				time.Sleep(30*time.Second - 1)
				probe(t, h, "not ready: "+c.missing, "not ready: "+c.missing)
				time.Sleep(time.Nanosecond)
				probe(t, h, "ready, but: "+c.missing, "not ready: "+c.missing)
			})
		})
	}
}

func TestReadyStaysReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.New(fleet.Target(fleettest.LoadMetrics), true)
		h := handler(f)
		st := &f.Stats
		st.Etcd.MarkUsed()
		st.Etcd.SetConnected(true)
		probe(t, h, "ready", "ready")
		st.Etcd.SetConnected(false)
		probe(t, h, "ready, but: etcd is not connected", "not ready: etcd is not connected")
		st.ZMQ.MarkUsed() // the first publisher is announced later
		probe(t, h, "ready, but: etcd is not connected, no ZMQ publisher is connected", "not ready: etcd is not connected, no ZMQ publisher is connected")
		time.Sleep(24 * time.Hour)
		st.ZMQ.SetConnected(true)
		probe(t, h, "ready, but: etcd is not connected", "not ready: etcd is not connected")
		st.Etcd.SetConnected(true)
		probe(t, h, "ready", "ready")
	})
}

// The program is not ready before it has read the registry, however long that takes, because it
// would look as if there were no workers.
func TestReadyNeedsTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target(fleettest.LoadMetrics), 1000, true)
		h := handler(f)
		f.Stats.Etcd.MarkUsed()
		time.Sleep(time.Hour)
		probe(t, h, "not ready: etcd is not connected, no poll has completed yet", "not ready: etcd is not connected, no poll has completed yet")
		f.Stats.Etcd.SetConnected(true)
		probe(t, h, "not ready: the registry has not been read yet, no poll has completed yet",
			"not ready: the registry has not been read yet, no poll has completed yet")
		f.Sync(fleet.Listing{})
		probe(t, h, "ready", "ready")
	})
}

func TestReadyRejectsBadParameter(t *testing.T) {
	w := testutil.Get(t, handler(readyFleet(t)), "/-/ready?strict=yes")
	testutil.Equal(t, "status", w.Code, http.StatusBadRequest)
	testutil.Equal(t, "body", w.Body.String(), "strict is \"yes\": want true or false\n")
}
