package leader

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// leaseServer is a fake API server with Leases.
type leaseServer struct {
	t      *testing.T
	server *kubetest.Server
	web    *httptest.Server
}

func newLeaseServer(t *testing.T) *leaseServer {
	t.Helper()
	s := new(kubetest.Server)
	web := httptest.NewServer(s)
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	return &leaseServer{t, s, web}
}

// newProgram returns another program that competes for the Lease.
func (k *leaseServer) newProgram() *Lease {
	k.t.Helper()
	client, err := kube.New(k.web.URL)
	if err != nil {
		k.t.Fatal(err)
	}
	st := new(stats.Stats)
	st.Kubernetes.MarkUsed()
	return &Lease{Client: client, In: "team-a", Namespaces: "lab", Stats: st, Log: slog.New(slog.DiscardHandler)}
}

// holdLease starts a program's Hold in a pod of this name.
func (k *leaseServer) holdLease(program *Lease, pod string, standby bool) (stop func(), ended <-chan error) {
	return testutil.Start(k.t, func(ctx context.Context) error {
		return program.Hold(ctx, pod, []byte(`{"component_name": "c", "host": "node-of-`+pod+`"}`), standby)
	})
}

// leaseSpec returns the spec of the only Lease.
func (k *leaseServer) leaseSpec() kubetest.Object {
	k.t.Helper()
	names := k.server.Names(kubetest.Leases, "team-a")
	if len(names) != 1 || !strings.HasPrefix(names[0], "dynamo-metrics-") {
		k.t.Fatalf("leases %q, want one", names)
	}
	o := k.server.Get(kubetest.Leases, "team-a", names[0])
	annotations := o["metadata"].(kubetest.Object)["annotations"].(kubetest.Object)
	if annotations["dynamo-metrics/key"] != "lab/components/metrics/instance" {
		k.t.Errorf("annotations %v, want the key", annotations)
	}
	return o["spec"].(kubetest.Object)
}

func TestLeaseLockIsReleased(t *testing.T) {
	t.Parallel()
	k := newLeaseServer(t)
	first, second := k.newProgram(), k.newProgram()
	stop, ended := k.holdLease(first, "first", true)
	devstacktest.WaitLeads(t, first.Stats, true)
	if holder, _ := k.leaseSpec()["holderIdentity"].(string); !strings.HasPrefix(holder, "first_") {
		t.Errorf("holder %q, want the pod", holder)
	}
	k.holdLease(second, "second", true)
	devstacktest.WaitLeads(t, first.Stats, true)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	devstacktest.WaitLeads(t, second.Stats, true) // at once, because the Lease was released
	if holder, _ := k.leaseSpec()["holderIdentity"].(string); !strings.HasPrefix(holder, "second_") {
		t.Errorf("holder %q, want the second", holder)
	}
	if n := k.leaseSpec()["leaseTransitions"]; n != 1.0 {
		t.Errorf("%v transitions, want 1", n)
	}
}
