package monitor

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// TestEmptyStateListsDisconnectedSystems tries NATS and each registry alone and together, before
// the first connection and after it. The empty state has the address and the error of each, and
// no command for a mock worker, which would not be found either.
func TestEmptyStateListsDisconnectedSystems(t *testing.T) {
	servers := map[string]string{"nats": "nats://10.0.3.7:4222", "etcd": "http://10.0.3.9:2379", "file": "/var/dynamo", "kubernetes": "https://10.96.0.1:443"}
	for _, registry := range []string{"etcd", "file", "kubernetes"} {
		for _, c := range []struct{ nats, registry bool }{{true, true}, {false, true}, {true, false}, {false, false}} {
			for _, before := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					f := fleet.New(fleet.Target{}, 100, true)
					conns := map[string]*stats.ConnState{"nats": &f.Stats.NATS, registry: registries(&f.Stats)[registry]}
					var want []string
					for name, conn := range conns {
						conn.MarkUsed()
						conn.SetConnected(before)
						if on := map[bool]bool{true: c.nats, false: c.registry}[name == "nats"]; on {
							conn.SetConnected(true)
							continue
						}
						conn.SetConnected(false)
						conn.SetError(name + " said: connection refused")
					}
					if before || c.registry {
						f.Sync(fleet.Listing{})
					}
					h := &harness{t: t, fleet: f, monitor: New(Options{Fleet: f, Namespaces: "dynamo", Limit: 100, Servers: servers, Registry: registry, Mock: "mock_worker"})}
					for _, name := range []string{"nats", registry} {
						if !conns[name].Up() {
							want = append(want, name+" at "+servers[name]+": "+name+" said: connection refused"+ifElse(before, ", lost", ""))
						}
					}
					time.Sleep(5 * time.Second)
					h.monitor.Sample(time.Now())
					s := h.snapshot()
					if s.Looking == nil {
						t.Fatal("the snapshot has no empty state")
					}
					var got []string
					for _, m := range s.Looking.Missing {
						got = append(got, m.System+" at "+m.Detail+": "+m.Why+ifElse(m.Lost, ", lost", ""))
						if c, in := s.Connected[m.System]; in && (c.On || c.Why != m.Why || c.Lost != before) {
							t.Errorf("connected is %+v", c)
						}
					}
					testutil.Equal(t, "missing", got, want)
					testutil.Equal(t, "mock", s.Looking.Mock, ifElse(len(want) == 0, "mock_worker", ""))
					if !c.registry {
						if p := h.problem("connection:" + registry); !strings.HasPrefix(p.Detail, servers[registry]+" ("+registry+" said: connection refused): ") {
							t.Errorf("the detail of the problem is %q", p.Detail)
						}
					}
				})
			}
		}
	}
}
