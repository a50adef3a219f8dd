package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/memnet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// court is an API server in memory, before which programs hold a Lease. The clock is held.
type court struct {
	t      *testing.T
	server kubetest.Server

	mu       sync.Mutex
	delay    time.Duration // of every word, each way
	away     bool          // no request is answered
	refuse   func(w http.ResponseWriter, r *http.Request) bool
	requests []string // method, and when it came

	network *memnet.Network
	began   time.Time
}

func inCourt(t *testing.T, test func(c *court)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &court{t: t, network: memnet.New(), began: time.Now()}
		s := &http.Server{Handler: http.HandlerFunc(c.serve)}
		var serving sync.WaitGroup
		serving.Go(func() { s.Serve(c.network) })
		t.Cleanup(func() { _ = s.Shutdown(context.Background()); serving.Wait() })
		test(c)
	})
}

func (c *court) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	delay, away, refuse := c.delay, c.away, c.refuse
	c.requests = append(c.requests, fmt.Sprintf("%s %v", r.Method, time.Since(c.began).Round(100*time.Millisecond)))
	c.mu.Unlock()
	if away {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(delay)
	answer := httptest.NewRecorder() // the server answers at once, and its word takes its time
	if refuse == nil || !refuse(answer, r) {
		c.server.ServeHTTP(answer, r)
	}
	time.Sleep(delay)
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (c *court) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// contender is a program that wants the Lease.
type contender struct {
	*Kubernetes
	stop  func()
	ended <-chan error
}

func (c *court) enter(name string, standby bool, log *slog.Logger) *contender {
	c.t.Helper()
	client, err := kube.NewWithDialer("http://api", c.network.Dial)
	if err != nil {
		c.t.Fatal(err)
	}
	f := fleet.New(fleet.Target{}, 100, true)
	k := &Kubernetes{Client: client, In: "team-a", Namespaces: "lab", Fleet: f, Log: log}
	stop, ended := run(c.t, func(ctx context.Context) error {
		defer client.CloseIdleConnections()
		return k.Hold(ctx, name, []byte(`{"component_name": "c", "host": "node-of-`+name+`"}`), standby)
	})
	return &contender{k, stop, ended}
}

// within is how long it takes until the program leads, or does not.
func (c *court) within(p *contender, want bool, others ...*contender) time.Duration {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		leads := p.Fleet.Stats.ActsAsLeader.Load()
		for _, o := range others {
			if leads && o.Fleet.Stats.ActsAsLeader.Load() {
				c.t.Fatal("two programs lead at once")
			}
		}
		if took := time.Since(began); leads == want || took > time.Minute {
			if leads != want {
				c.t.Fatalf("it leads: %v after a minute, want %v; requests %q", leads, want, c.requests)
			}
			return took
		}
	}
}

// throughout looks for so long whether the program leads all the time, or never.
func (c *court) throughout(p *contender, want bool, d time.Duration) {
	c.t.Helper()
	for began := time.Now(); time.Since(began) < d; time.Sleep(10 * time.Millisecond) {
		if leads := p.Fleet.Stats.ActsAsLeader.Load(); leads != want {
			c.t.Fatalf("after %v it leads: %v, want %v; requests %q", time.Since(began), leads, want, c.requests)
		}
	}
}

// ran fails the test if a program has ended.
func (c *court) ran(p *contender) {
	c.t.Helper()
	select {
	case err := <-p.ended:
		c.t.Errorf("it ended: %v", err)
	default:
	}
}

// edit changes the Lease as another client does.
func (c *court) edit(change func(o kubetest.Object)) {
	c.t.Helper()
	name := c.server.Names(kubetest.Leases, "team-a")[0]
	o := c.server.Get(kubetest.Leases, "team-a", name)
	spec := make(kubetest.Object)
	for k, v := range o["spec"].(kubetest.Object) {
		spec[k] = v
	}
	o["spec"] = spec
	change(o)
	c.server.Put(kubetest.Leases, o)
}

var quiet = slog.New(slog.DiscardHandler)

func TestANewLeaderWaitsForTheOneBeforeToStop(t *testing.T) {
	inCourt(t, func(c *court) {
		p := c.enter("first", true, quiet)
		if took := c.within(p, true); took < claimFor || took > claimFor+confirmEvery+20*time.Millisecond {
			t.Errorf("it leads %v after it has taken the lease, want 2 s", took)
		}
	})
}

func TestASecondInstanceIsRefusedWhereTheFirstRenewsItsLease(t *testing.T) {
	inCourt(t, func(c *court) {
		first := c.enter("first", false, quiet)
		c.within(first, true)
		second := c.enter("second", false, quiet)
		began := time.Now()
		err := <-second.ended
		for _, part := range []string{"another instance exists on host node-of-first: its holder is first_", "; with --standby this one waits"} {
			if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), part) {
				t.Errorf("%v, want that the first exists, and %s", err, part)
			}
		}
		if took := time.Since(began); took > updateLease+lookAtLease {
			t.Errorf("that is known after %v, want with the next update", took)
		}
		c.throughout(first, true, time.Minute)
		c.ran(first)
	})
}

func TestALeaseOfADeadHolderIsTakenOverAfterItsTime(t *testing.T) {
	for said, want := range map[int]time.Duration{0: 10, 1: 10, 15: 15, 3600: longestLease} { // seconds
		t.Run(fmt.Sprint(said), func(t *testing.T) {
			inCourt(t, func(c *court) {
				// Its clock is years ahead: only whether it changes the Lease counts.
				c.server.Put(kubetest.Leases, kubetest.Object{
					"metadata": kubetest.Object{"name": leaseName("lab/components/metrics/instance"), "namespace": "team-a"},
					"spec":     kubetest.Object{"holderIdentity": "dead", "leaseDurationSeconds": said, "renewTime": "2099-01-01T00:00:00.000000Z"},
				})
				next := c.enter("next", false, quiet)
				time.Sleep(100 * time.Millisecond) // it has looked
				c.throughout(next, false, want*time.Second)
				if took := c.within(next, true); took > lookAtLease+claimFor+confirmEvery {
					t.Errorf("it leads %v after the time is over", took)
				}
				c.ran(next)
			})
		})
	}
}

func TestALeaderWhoseLeaseIsTakenStandsBy(t *testing.T) {
	inCourt(t, func(c *court) {
		p := c.enter("first", true, quiet)
		c.within(p, true)
		c.edit(func(o kubetest.Object) {
			o["spec"] = kubetest.Object{"holderIdentity": "thief", "leaseDurationSeconds": 10}
		})
		c.within(p, false)
		c.edit(func(o kubetest.Object) { o["spec"] = kubetest.Object{} })
		c.within(p, true)
		c.server.Delete(kubetest.Leases, "team-a", c.server.Names(kubetest.Leases, "team-a")[0])
		c.within(p, false)
		c.within(p, true)
		if names := c.server.Names(kubetest.Leases, "team-a"); len(names) != 1 { // it has made a new one
			t.Errorf("leases %q", names)
		}
		c.ran(p)
	})
}

func TestALeaseThatMayNotBeMadeIsTriedAgain(t *testing.T) {
	inCourt(t, func(c *court) {
		c.server.Forbid(kubetest.Leases, true)
		p := c.enter("first", false, quiet)
		c.throughout(p, false, 5*time.Minute)
		c.set(func() {
			if n := len(c.requests); n < 5*60/30 {
				t.Errorf("%d requests in five minutes", n)
			}
		})
		c.server.Forbid(kubetest.Leases, false)
		if took := c.within(p, true); took > confirmIn+claimFor+confirmEvery {
			t.Errorf("it leads %v after the right is given", took)
		}
		c.ran(p)
	})
}

// TestALeaderBehindASlowAPIDoesNotWaver whose every word takes 0.6 s each way.
func TestALeaderBehindASlowAPIDoesNotWaver(t *testing.T) {
	for name, standby := range map[string]bool{"beside others": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			inCourt(t, func(c *court) {
				c.delay = 600 * time.Millisecond
				p := c.enter("first", standby, quiet)
				c.within(p, true)
				c.throughout(p, true, 5*time.Minute)
				if !p.Fleet.Stats.Leader.Load() {
					t.Error("it does not hold the lease")
				}
			})
		})
	}
}

func TestWhoFollowsALeaderThatResignsDoesNotWait(t *testing.T) {
	inCourt(t, func(c *court) {
		first := c.enter("first", true, quiet)
		c.within(first, true)
		second := c.enter("second", true, quiet)
		c.throughout(second, false, time.Minute)
		first.stop()
		if took := c.within(second, true, first); took > time.Second {
			t.Errorf("it leads %v after the other has resigned", took)
		}
	})
}

// TestALeaseThatIsChangedByAnotherIsLost at once, and taken again when it is free.
func TestALeaseThatIsChangedByAnotherIsLost(t *testing.T) {
	for name, change := range map[string]func(c *court){
		"deleted": func(c *court) {
			c.server.Delete(kubetest.Leases, "team-a", c.server.Names(kubetest.Leases, "team-a")[0])
		},
		"overwritten": func(c *court) { c.edit(func(o kubetest.Object) { o["spec"] = kubetest.Object{} }) },
		"the holder edited": func(c *court) {
			c.edit(func(o kubetest.Object) { o["spec"].(kubetest.Object)["holderIdentity"] = "thief" })
		},
		"the holder taken out": func(c *court) { c.edit(func(o kubetest.Object) { o["spec"].(kubetest.Object)["holderIdentity"] = "" }) },
		"renewTime edited": func(c *court) {
			c.edit(func(o kubetest.Object) { o["spec"].(kubetest.Object)["renewTime"] = "2001-01-01T00:00:00.000000Z" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inCourt(t, func(c *court) {
				first := c.enter("first", true, quiet)
				c.within(first, true)
				second := c.enter("second", true, quiet)
				c.throughout(first, true, 15*time.Second+200*time.Millisecond)
				change(c)
				if took := c.within(first, false, second); took > updateLease+20*time.Millisecond {
					t.Errorf("it leads for %v without the lease", took)
				}
				began := time.Now()
				for !first.Fleet.Stats.ActsAsLeader.Load() && !second.Fleet.Stats.ActsAsLeader.Load() {
					if time.Sleep(10 * time.Millisecond); time.Since(began) > 20*time.Second {
						t.Fatal("neither leads")
					}
				}
				if first.Fleet.Stats.ActsAsLeader.Load() && second.Fleet.Stats.ActsAsLeader.Load() {
					t.Error("both lead")
				}
				if took := time.Since(began); took < claimFor-updateLease/2 {
					t.Errorf("the next leads after %v", took)
				}
			})
		})
	}
}

func TestALeaderThatHearsNothingStopsBeforeAnotherBegins(t *testing.T) {
	inCourt(t, func(c *court) {
		first := c.enter("first", true, quiet)
		c.within(first, true)
		c.set(func() { c.away = true })
		if took := c.within(first, false); took < time.Second || took > claimFor {
			t.Errorf("it leads for %v without a word from the server, want up to 2 s", took)
		}
		c.set(func() { c.away = false })
		if took := c.within(first, true); took > 4*time.Second {
			t.Errorf("it leads %v after the server is back", took)
		}
	})
}

func TestAProgramThatMayNotStandByLeadsOnWhileTheAPIIsAway(t *testing.T) {
	inCourt(t, func(c *court) {
		p := c.enter("first", false, quiet)
		c.within(p, true)
		c.set(func() { c.away = true })
		c.throughout(p, true, 10*time.Minute)
		if p.Fleet.Stats.Leader.Load() {
			t.Error("it says that it holds the lease, after ten minutes")
		}
		c.edit(func(o kubetest.Object) { o["spec"].(kubetest.Object)["holderIdentity"] = "thief" })
		c.set(func() { c.away = false })
		c.within(p, false)
		time.Sleep(time.Minute)
		if !p.Fleet.Stats.ActsAsLeader.Load() { // the thief does not renew it
			t.Error("it does not lead again")
		}
	})
}

// TestAnAPIThatAsksForMoreTimeThanTheLeaseHas does not cost the leadership, and is heard all
// the same: it is asked less often, and the log says so.
func TestAnAPIThatAsksForMoreTimeThanTheLeaseHas(t *testing.T) {
	inCourt(t, func(c *court) {
		log, out := testutil.NewLog()
		first := c.enter("first", true, log)
		c.within(first, true)
		var done atomic.Bool
		c.set(func() {
			c.requests = nil
			c.refuse = func(w http.ResponseWriter, r *http.Request) bool {
				if done.Load() {
					return false
				}
				w.Header().Set("Retry-After", "30")
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}
		})
		time.Sleep(9 * time.Second)
		if first.Fleet.Stats.ActsAsLeader.Load() {
			t.Error("it leads without a confirmation")
		}
		c.set(func() {
			if n := len(c.requests); n > 8 {
				t.Errorf("%d requests in 9 s, want one each 3.3 s to look, and one to update: %q", n, c.requests)
			}
		})
		done.Store(true)
		if took := c.within(first, true); took > 4*time.Second {
			t.Errorf("it leads %v after the server can answer", took)
		}
		if n := out.Count("cannot be updated"); n != 1 || !strings.Contains(out.String(), "it asks to wait for 30s") || out.Count("Lost the lease") > 0 {
			t.Errorf("the log says:\n%s", out)
		}
		if first.Fleet.Stats.Failures(stats.PeerKubernetes) == 0 {
			t.Error("no call is counted as failed")
		}
	})
}
