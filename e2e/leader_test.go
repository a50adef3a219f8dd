package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/internal/testutil"
)

// replicaGateway is a Pushgateway that records which replica each push is from, by the
// label replica.
type replicaGateway struct {
	*httptest.Server
	mu  sync.Mutex
	all []string
}

func newReplicaGateway(t *testing.T) *replicaGateway {
	t.Helper()
	g := new(replicaGateway)
	g.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		_, replica, _ := strings.Cut(r.URL.Path, "/replica/")
		g.all = append(g.all, replica)
	}))
	t.Cleanup(g.Close)
	return g
}

// pushOrder returns the replicas in the order of their pushes, with repetitions removed,
// and how often the last one has pushed.
func (g *replicaGateway) pushOrder() (order []string, last int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, replica := range slices.Backward(g.all) {
		if replica != g.all[len(g.all)-1] {
			break
		}
		last++
	}
	return slices.Compact(slices.Clone(g.all)), last
}

// TestLeaderKeyDeletedLeavesOneLeader checks that the pushes of a pair never mix. Operators
// delete the key when they read that another instance exists.
func TestLeaderKeyDeletedLeavesOneLeader(t *testing.T) {
	t.Parallel()
	s, _ := newStackWithWorker(t)
	gateway := newReplicaGateway(t)
	var pair [2]*server
	for i, name := range []string{"a", "b"} {
		pair[i] = s.metrics("--component", "backend", "--poll-interval", "0.1", "--standby", "--push", "--push-url", gateway.URL,
			"--push-interval", "1", "--push-grouping", "replica="+name)
		if i == 0 {
			pair[i].waitForSamples(samples{"dynamo_metrics_leader": "1"})
		} else {
			pair[i].WaitForLine("Standing by: ")
		}
	}
	for range 2 {
		before, pushes := gateway.pushOrder()
		keyRevision := func() int64 {
			got, err := s.etcd.Get(t.Context(), instanceKey)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Kvs) == 0 {
				return 0
			}
			return got.Kvs[0].ModRevision
		}
		old := keyRevision()
		if _, err := s.etcd.Delete(t.Context(), instanceKey); err != nil {
			t.Fatal(err)
		}
		testutil.Until(t, func() error {
			if now := keyRevision(); now <= old {
				return errors.New("no program has taken the key")
			}
			leaders := 0
			for _, m := range pair {
				p, err := m.scrape()
				if err != nil {
					return err
				}
				_, body := get(m.url + "/api/v1/fleet")
				leads := p["dynamo_metrics_leader"] == "1"
				if leads != strings.Contains(body, `"role":"leader"`) {
					return fmt.Errorf("dynamo_metrics_leader is %s, and the snapshot is %.300s", p["dynamo_metrics_leader"], body)
				}
				if leads {
					leaders++
				}
			}
			if leaders != 1 {
				return fmt.Errorf("%d programs lead", leaders)
			}
			if order, last := gateway.pushOrder(); last < 3 || len(order) == len(before) && last < pushes+3 {
				return fmt.Errorf("the pushes are from %q", order)
			}
			return nil
		})
	}
	for _, m := range pair {
		m.Terminate()
	}
	if order, _ := gateway.pushOrder(); len(order) > 4 { // the terminated leader may push once more
		t.Errorf("the pushes are from %q, want four changes at most", order)
	}
}
