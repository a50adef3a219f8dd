package discovery

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
)

// holdLease holds the Lease as a pod of this name.
func (k *kubeRegistry) holdLease(program *Kubernetes, pod string, standby bool) (stop func(), ended <-chan error) {
	return start(k.t, func(ctx context.Context) error {
		return program.Hold(ctx, pod, []byte(`{"component_name": "c", "host": "node-of-`+pod+`"}`), standby)
	})
}

// lives waits until the program takes itself for the unique instance, or does not.
func waitKubeLeads(t *testing.T, program *Kubernetes, want bool) {
	t.Helper()
	testutil.Until(t, func() error {
		if got := program.Fleet.Stats.ActsAsLeader.Load(); got != want {
			return fmt.Errorf("unique: %v, want %v", got, want)
		}
		return nil
	})
}

// spec is the spec of the only Lease.
func (k *kubeRegistry) leaseSpec() kubetest.Object {
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
	k := newKubeRegistry(t)
	stop, ended := k.holdLease(k.Kubernetes, "first", true)
	waitKubeLeads(t, k.Kubernetes, true)
	if holder, _ := k.leaseSpec()["holderIdentity"].(string); !strings.HasPrefix(holder, "first_") {
		t.Errorf("holder %q, want the pod", holder)
	}
	second := k.newProgram()
	k.holdLease(second, "second", true)
	waitKubeLeads(t, k.Kubernetes, true)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	waitKubeLeads(t, second, true) // at once: nobody waits for what was given back
	if holder, _ := k.leaseSpec()["holderIdentity"].(string); !strings.HasPrefix(holder, "second_") {
		t.Errorf("holder %q, want the second", holder)
	}
	if n := k.leaseSpec()["leaseTransitions"]; n != 1.0 {
		t.Errorf("%v transitions, want 1", n)
	}
}
