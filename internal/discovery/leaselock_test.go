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
func (k *inTeamA) holdLease(program *Kubernetes, pod string, standby bool) (stop func(), ended <-chan error) {
	return run(k.t, func(ctx context.Context) error {
		return program.Hold(ctx, pod, []byte(`{"component_name": "c", "host": "node-of-`+pod+`"}`), standby)
	})
}

// lives waits until the program takes itself for the unique instance, or does not.
func lives(t *testing.T, program *Kubernetes, want bool) {
	t.Helper()
	testutil.Until(t, func() error {
		if got := program.Fleet.Stats.ActsAsLeader.Load(); got != want {
			return fmt.Errorf("unique: %v, want %v", got, want)
		}
		return nil
	})
}

// spec is the spec of the only Lease.
func (k *inTeamA) spec() kubetest.Object {
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

func TestALeaseMakesOneTheUniqueInstanceAndIsGivenBack(t *testing.T) {
	t.Parallel()
	k := newInTeamA(t)
	stop, ended := k.holdLease(k.Kubernetes, "first", true)
	lives(t, k.Kubernetes, true)
	if holder, _ := k.spec()["holderIdentity"].(string); !strings.HasPrefix(holder, "first_") {
		t.Errorf("holder %q, want the pod", holder)
	}
	second := k.another()
	k.holdLease(second, "second", true)
	lives(t, k.Kubernetes, true)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	lives(t, second, true) // at once: nobody waits for what was given back
	if holder, _ := k.spec()["holderIdentity"].(string); !strings.HasPrefix(holder, "second_") {
		t.Errorf("holder %q, want the second", holder)
	}
	if n := k.spec()["leaseTransitions"]; n != 1.0 {
		t.Errorf("%v transitions, want 1", n)
	}
}
