//go:build real

package real

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
)

// takeover is the time in which a standby must take over: the duration of the leader's
// Lease and three seconds. tolerance is the extra time that a busy machine may take.
const takeover, tolerance = 13 * time.Second, time.Second

// lease returns the only Lease, and its name.
func (k *kubernetesAPI) lease() (name string, spec kubetest.Object) {
	k.t.Helper()
	_, page, err := k.list(kubetest.Leases, "")
	if err != nil {
		k.t.Fatal(err)
	}
	items, _ := page["items"].([]any)
	if len(items) != 1 {
		k.t.Fatalf("%d leases, want one: %v", len(items), items)
	}
	item := items[0].(kubetest.Object)
	return item["metadata"].(kubetest.Object)["name"].(string), item["spec"].(kubetest.Object)
}

// leaseTime returns a time of a Lease.
func leaseTime(t *testing.T, spec kubetest.Object, name string) time.Time {
	t.Helper()
	text, _ := spec[name].(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatalf("%s of %v: %v", name, spec, err)
	}
	return at
}

// waitUntilLeading waits until the program leads, or does not lead.
func (m *metrics) waitUntilLeading(leads bool) {
	m.T.Helper()
	want := "0"
	if leads {
		want = "1"
	}
	m.waitForSamples(map[string]string{"dynamo_metrics_leader": want})
}

// TestKubernetesLeasePassesToAStandby kills the leader, and terminates the next one.
func TestKubernetesLeasePassesToAStandby(t *testing.T) {
	s, k := startNightlyCluster(t)
	s.kube.register("pod-0", 1)
	s.kube.ready("pod-0", true)
	first := s.startInCluster("--standby")
	first.waitUntilLeading(true)
	second, third := s.startInCluster("--standby"), s.startInCluster("--standby")
	for _, m := range []*metrics{second, third} {
		m.WaitForLine("Standing by: ")
		m.waitUntilLeading(false)
	}
	first.Kill()
	died := time.Now()
	_, before := k.lease()
	next, other := waitForOneLeader(t, second, third)
	took := time.Since(died)
	t.Logf("taken over %v after the leader was killed", took.Round(time.Millisecond))
	if took > takeover+tolerance {
		t.Errorf("taken over after %v, want %v", took, takeover)
	}
	next.waitForSamples(silentCount("1"))
	other.waitUntilLeading(false)
	_, after := k.lease()
	if after["holderIdentity"] == before["holderIdentity"] || after["leaseTransitions"] != float64(1) {
		t.Errorf("the lease %v follows %v, want another holder and one transition", after, before)
	}
	if unrenewed := leaseTime(t, after, "acquireTime").Sub(leaseTime(t, before, "renewTime")); unrenewed < 10*time.Second {
		t.Errorf("the lease was taken %v after it was renewed: its holder may still be alive", unrenewed)
	}
	began := time.Now()
	next.Signal(syscall.SIGTERM)
	other.waitUntilLeading(true)
	took = time.Since(began)
	t.Logf("taken over %v after the leader received SIGTERM", took.Round(time.Millisecond))
	if took > time.Second+tolerance {
		t.Errorf("taken over after %v from a leader that terminated, want a second", took)
	}
	if code := next.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	other.Terminate()
	if _, free := k.lease(); free["holderIdentity"] != "" {
		t.Errorf("the lease %v has a holder, and all have ended", free)
	}
}

// waitForOneLeader waits until one of two programs leads.
func waitForOneLeader(t *testing.T, a, b *metrics) (leader, other *metrics) {
	t.Helper()
	testutil.Until(t, func() error {
		for _, pair := range [][2]*metrics{{a, b}, {b, a}} {
			p, err := pair[0].scrape()
			if err != nil {
				return err
			}
			if p["dynamo_metrics_leader"] == "1" {
				leader, other = pair[0], pair[1]
				return nil
			}
		}
		return fmt.Errorf("no program leads")
	})
	return leader, other
}

// TestKubernetesLeaseIsHeldByOneOfManyStandbys starts many programs at once.
func TestKubernetesLeaseIsHeldByOneOfManyStandbys(t *testing.T) {
	s, k := startNightlyCluster(t)
	programs := make([]*metrics, 4)
	for i := range programs {
		programs[i] = s.startInCluster("--standby")
	}
	leaders := 0
	for _, m := range programs {
		testutil.Until(t, func() error {
			p, err := m.scrape()
			if err == nil && p["dynamo_metrics_leader"] == "1" {
				leaders++
				return nil
			}
			if len(m.LinesWith("Standing by: ")) == 0 {
				return fmt.Errorf("it is neither leader nor standby (%v)", err)
			}
			return nil
		})
	}
	created, refused := k.proxy.count(http.StatusCreated, http.MethodPost, "/leases"), k.proxy.count(http.StatusConflict, http.MethodPost, "/leases")
	if leaders != 1 || created != 1 {
		t.Errorf("%d programs lead, and %d have created the lease; want one", leaders, created)
	}
	t.Logf("the lease was created once, and refused with 409 %d times", refused)
}

// TestKubernetesLeaseChangeIsAConflict changes the Lease as kubectl edit does, and as
// another holder does. The program leads only with a Lease that it wrote itself, and
// acquires it again.
func TestKubernetesLeaseChangeIsAConflict(t *testing.T) {
	s, k := startNightlyCluster(t)
	m := s.startInCluster()
	m.waitUntilLeading(true)
	name, _ := k.lease()
	write := func(o kubetest.Object) {
		t.Helper()
		o["metadata"] = kubetest.Object{"name": name, "namespace": inNamespace, "labels": kubetest.Object{"edited": "yes"}}
		k.Put(kubetest.Leases, o)
	}
	waitForLosses := func(n int) {
		t.Helper()
		testutil.Until(t, func() error {
			if logged := m.LinesWith("Lost the lease of the unique instance"); len(logged) != n {
				return fmt.Errorf("%q, want %d lines", logged, n)
			}
			return nil
		})
	}
	write(kubetest.Object{})
	waitForLosses(1)
	if n := k.proxy.count(http.StatusConflict, http.MethodPut, "/"+name); n == 0 {
		t.Error("no update was refused with 409")
	}
	m.waitUntilLeading(true)
	write(kubetest.Object{"spec": kubetest.Object{"holderIdentity": "thief"}})
	waitForLosses(2)
	m.waitUntilLeading(false)
	m.waitUntilLeading(true) // the other holder does not renew it
	if _, spec := k.lease(); spec["holderIdentity"] == "thief" {
		t.Errorf("the lease is still %v", spec)
	}
}
