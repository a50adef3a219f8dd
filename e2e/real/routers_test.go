//go:build real

package real

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// routers are what a frontend that routes by KV caches registers in addition to workers, in
// the first and the last release of each form.
var routers = []struct {
	release, prefix string
	keys            int // of each frontend
}{
	{"0.8.1", "v1/instances/dynamo/kv-router/generate/", 1},
	{"0.9.1", "v1/instances/dynamo/kv-router/generate/", 1},
	{"1.0.2", "v1/instances/dynamo/backend/router-discovery/", 1},
	{"1.5.1", "v1/instances/dynamo/backend/router-discovery/", 1},
	{"1.6.1", "v1/instances/dynamo/backend/router-discovery/", 0},
}

// sampleInterval is the time between two checks of a fleet.
const sampleInterval = 5 * time.Second

// checkCount returns the number of checks in two minutes, or in 15 with SURVIVAL=long, which
// .ci/nightly sets.
func checkCount() int {
	if os.Getenv("SURVIVAL") == "long" {
		return int(15 * time.Minute / sampleInterval)
	}
	return int(2 * time.Minute / sampleInterval)
}

// routedFleet is a fleet of two workers and three frontends, with the program.
type routedFleet struct {
	*servers
	metrics    *metrics
	frontends  []*pipeline // the frontends that stay
	leaver     *pipeline   // the third frontend, which leaves
	requests   int         // number of requests
	scrapes    scrapes     // all scrapes
	firstError error       // the first error
}

// startRoutedFleet starts a fleet, and waits until all of it works and no problem is left.
func (s *servers) startRoutedFleet(release string) *routedFleet {
	s.t.Helper()
	s.startNATS(process.NATSServer(s.t))
	s.startEtcd()
	f := &routedFleet{servers: s, metrics: s.metrics()}
	engines := s.engines(release, nil)
	for i := range 3 {
		f.frontends = append(f.frontends, s.frontend(release, fmt.Sprintf("frontend-%d", i)))
	}
	for _, frontend := range f.frontends {
		frontend.waitUntilServing(engines)
	}
	testutil.Until(s.t, f.sample)
	f.leaver, f.frontends, f.scrapes = f.frontends[2], f.frontends[:2], nil
	return f
}

// waitForRouters waits until this many keys of routers are registered.
func (f *routedFleet) waitForRouters(prefix string, keys int) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		found, err := f.etcd.Get(f.t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && found.Count != int64(keys) {
			err = fmt.Errorf("etcd has %d keys with %s, want %d", found.Count, prefix, keys)
		}
		return err
	})
}

// sample sends requests to the fleet, and returns an error if the program shows anything
// wrong then.
func (f *routedFleet) sample() error {
	if err := f.sendRequests(); err != nil {
		return err
	}
	p, err := f.metrics.scrape()
	if err != nil {
		return err
	}
	f.scrapes = append(f.scrapes, p)
	if err := p.matchTwoWorkers(); err != nil {
		return err
	}
	var snapshot struct {
		Workers  []struct{ Component, Endpoint, State string }
		Problems []struct{ ID, Title, Detail string }
	}
	if err := getJSON(f.metrics.url+"/api/v1/fleet", &snapshot); err != nil {
		return err
	}
	if len(snapshot.Problems) > 0 {
		return fmt.Errorf("the snapshot has the problems %+v", snapshot.Problems)
	}
	for _, w := range snapshot.Workers {
		if w.Component != "backend" || w.Endpoint != "generate" || w.State != "answering" {
			return fmt.Errorf("the snapshot has the worker %+v", w)
		}
	}
	if len(snapshot.Workers) != 2 {
		return fmt.Errorf("the snapshot has the workers %+v, want two", snapshot.Workers)
	}
	return nil
}

// sendRequests sends some requests at once, each with other words, so that both workers
// receive some.
func (f *routedFleet) sendRequests() error {
	const atOnce, words = 4, 40
	frontend := f.frontends[f.requests/atOnce%len(f.frontends)]
	var g errgroup.Group
	for range atOnce {
		f.requests++
		var prompt strings.Builder
		for i := range words {
			fmt.Fprintf(&prompt, "w%d ", (f.requests+i*f.requests)%61)
		}
		g.Go(func() error {
			_, err := frontend.sendChat(prompt.String())
			return err
		})
	}
	return g.Wait()
}

// matchTwoWorkers returns an error if more than the two workers is counted.
func (p samples) matchTwoWorkers() error {
	const answering = `llm_workers{component="backend",endpoint="generate",state="answering"}`
	if p[answering] != "2" {
		return fmt.Errorf("%s is %q, want 2", answering, p[answering])
	}
	up := 0
	for series, value := range p {
		switch {
		case strings.HasPrefix(series, "llm_workers{") && series != answering && value != "0":
			return fmt.Errorf("%s is %s, want 0", series, value)
		case strings.HasPrefix(series, `llm_worker_up{component="backend",endpoint="generate",`) && value == "1":
			up++
		case strings.HasPrefix(series, "llm_worker_up{"):
			return fmt.Errorf("%s is %s: not one of the workers", series, value)
		}
	}
	if up != 2 {
		return fmt.Errorf("llm_worker_up is 1 of %d workers, want 2", up)
	}
	return nil
}

// TestRoutersAreNotCountedAsWorkers runs fleets with all forms of routers at the same time.
// Halfway through, one frontend of each fleet is ended.
func TestRoutersAreNotCountedAsWorkers(t *testing.T) {
	t.Parallel()
	for _, router := range routers {
		python(t, router.release)
	}
	fleets := make([]*routedFleet, len(routers))
	for i, router := range routers {
		s := &servers{t: t}
		fleets[i] = s.startRoutedFleet(router.release)
		fleets[i].waitForRouters(router.prefix, 3*router.keys)
	}
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	checks := checkCount()
	for n := range checks {
		<-tick.C
		var sampling sync.WaitGroup
		for _, f := range fleets {
			if n == checks/2 {
				f.leaver.frontend.Signal(syscall.SIGTERM)
			}
			sampling.Go(func() {
				if err := f.sample(); err != nil && f.firstError == nil {
					f.firstError = fmt.Errorf("check %d of %d: %w", n+1, checks, err)
				}
			})
		}
		sampling.Wait()
	}
	for i, router := range routers {
		f := fleets[i]
		f.leaver.frontend.Wait()
		f.waitForRouters(router.prefix, 2*router.keys)
		t.Run(router.release, func(t *testing.T) {
			if f.firstError != nil {
				t.Error(f.firstError)
			}
			t.Logf("%d checks, %d requests", len(f.scrapes), f.requests)
			f.scrapes.checkAlerts(t)
			f.scrapes.with(silentRouters).checkAlerts(t, "DynamoWorkersLost")
			f.scrapes.with(silentWorker).checkAlerts(t, "DynamoWorkerSilent")
		})
	}
}
