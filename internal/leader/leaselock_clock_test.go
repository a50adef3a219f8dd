package leader

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

	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/memnet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// leaseTest is an API server in memory, with the test's clock. Programs compete for a Lease in it.
type leaseTest struct {
	t      *testing.T
	server kubetest.Server

	mu       sync.Mutex
	delay    time.Duration                                     // of each request and each response
	down     bool                                              // connections are closed without a response
	refuse   func(w http.ResponseWriter, r *http.Request) bool // reports whether it has refused a request; nil: none is refused
	requests []string                                          // method and time

	network *memnet.Network
	began   time.Time
}

// withLeaseAPI runs a test in a synctest bubble.
func withLeaseAPI(t *testing.T, test func(c *leaseTest)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &leaseTest{t: t, network: memnet.New(), began: time.Now()}
		s := &http.Server{Handler: http.HandlerFunc(c.serve)}
		var serving sync.WaitGroup
		serving.Go(func() { s.Serve(c.network) })
		t.Cleanup(func() { _ = s.Shutdown(context.Background()); serving.Wait() })
		test(c)
	})
}

func (c *leaseTest) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	delay, down, refuse := c.delay, c.down, c.refuse
	c.requests = append(c.requests, fmt.Sprintf("%s %v", r.Method, time.Since(c.began).Round(100*time.Millisecond)))
	c.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(delay)
	answer := httptest.NewRecorder() // the server handles the request at once, and the response is delayed
	if refuse == nil || !refuse(answer, r) {
		c.server.ServeHTTP(answer, r)
	}
	time.Sleep(delay)
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (c *leaseTest) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// candidate is a program that competes for the Lease.
type candidate struct {
	*Lease
	stop  func()
	ended <-chan error
}

func (c *leaseTest) start(name string, standby bool, log *slog.Logger) *candidate {
	c.t.Helper()
	client, err := kube.NewWithDialer("http://api", c.network.Dial)
	if err != nil {
		c.t.Fatal(err)
	}
	k := &Lease{Client: client, In: "team-a", Namespaces: "lab", Stats: new(stats.Stats), Log: log}
	stop, ended := testutil.Start(c.t, func(ctx context.Context) error {
		defer client.CloseIdleConnections()
		return k.Hold(ctx, name, []byte(`{"component_name": "c", "host": "node-of-`+name+`"}`), standby)
	})
	return &candidate{k, stop, ended}
}

// waitLeads waits until the program leads, or does not, and returns how long that took. It fails
// the test if one of the others leads at the same time as the program.
func (c *leaseTest) waitLeads(p *candidate, want bool, others ...*candidate) time.Duration {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		leads := p.Stats.ActsAsLeader.Load()
		for _, o := range others {
			if leads && o.Stats.ActsAsLeader.Load() {
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

// wantThroughout fails the test unless the program leads, or does not, for the whole of d.
func (c *leaseTest) wantThroughout(p *candidate, want bool, d time.Duration) {
	c.t.Helper()
	for began := time.Now(); time.Since(began) < d; time.Sleep(10 * time.Millisecond) {
		if leads := p.Stats.ActsAsLeader.Load(); leads != want {
			c.t.Fatalf("after %v it leads: %v, want %v; requests %q", time.Since(began), leads, want, c.requests)
		}
	}
}

// wantRunning fails the test if a program has ended.
func (c *leaseTest) wantRunning(p *candidate) {
	c.t.Helper()
	select {
	case err := <-p.ended:
		c.t.Errorf("it ended: %v", err)
	default:
	}
}

// editLease changes the Lease as another client.
func (c *leaseTest) editLease(change func(o kubetest.Object)) {
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

var discardLog = slog.New(slog.DiscardHandler)

func TestLeaseLockNewLeaderWaits(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		p := c.start("first", true, discardLog)
		if took := c.waitLeads(p, true); took < confirmationTTL || took > confirmationTTL+confirmInterval+20*time.Millisecond {
			t.Errorf("it leads %v after it has acquired the lease, want 2 s", took)
		}
	})
}

func TestLeaseLockRefusesSecondInstance(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		first := c.start("first", false, discardLog)
		c.waitLeads(first, true)
		second := c.start("second", false, discardLog)
		began := time.Now()
		err := <-second.ended
		for _, part := range []string{"another instance exists on host node-of-first: its holder is first_", "; with --standby, this instance waits"} {
			if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), part) {
				t.Errorf("%v, want ErrExists with %q", err, part)
			}
		}
		if took := time.Since(began); took > leaseRenewInterval+standbyInterval {
			t.Errorf("it is refused after %v, want at the next update", took)
		}
		c.wantThroughout(first, true, time.Minute)
		c.wantRunning(first)
	})
}

func TestLeaseLockTakesOverExpiredLease(t *testing.T) {
	for seconds, want := range map[int]time.Duration{0: 10, 1: 10, 15: 15, 3600: maxLeaseSeconds} { // the Lease's duration and the expected wait, in seconds
		t.Run(fmt.Sprint(seconds), func(t *testing.T) {
			withLeaseAPI(t, func(c *leaseTest) {
				// The holder's clock is years ahead: only changes of the Lease count.
				c.server.Put(kubetest.Leases, kubetest.Object{
					"metadata": kubetest.Object{"name": leaseName("lab/components/metrics/instance"), "namespace": "team-a"},
					"spec":     kubetest.Object{"holderIdentity": "dead", "leaseDurationSeconds": seconds, "renewTime": "2099-01-01T00:00:00.000000Z"},
				})
				next := c.start("next", false, discardLog)
				time.Sleep(100 * time.Millisecond) // until it has read the Lease
				c.wantThroughout(next, false, want*time.Second)
				if took := c.waitLeads(next, true); took > standbyInterval+confirmationTTL+confirmInterval {
					t.Errorf("it leads %v after the lease has expired", took)
				}
				c.wantRunning(next)
			})
		})
	}
}

func TestLeaseLockStandsByAfterLoss(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		p := c.start("first", true, discardLog)
		c.waitLeads(p, true)
		c.editLease(func(o kubetest.Object) {
			o["spec"] = kubetest.Object{"holderIdentity": "other", "leaseDurationSeconds": 10}
		})
		c.waitLeads(p, false)
		c.editLease(func(o kubetest.Object) { o["spec"] = kubetest.Object{} })
		c.waitLeads(p, true)
		c.server.Delete(kubetest.Leases, "team-a", c.server.Names(kubetest.Leases, "team-a")[0])
		c.waitLeads(p, false)
		c.waitLeads(p, true)
		if names := c.server.Names(kubetest.Leases, "team-a"); len(names) != 1 { // it has created a new one
			t.Errorf("leases %q", names)
		}
		c.wantRunning(p)
	})
}

func TestLeaseLockRetriesForbiddenCreate(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		c.server.Forbid(kubetest.Leases, true)
		p := c.start("first", false, discardLog)
		c.wantThroughout(p, false, 5*time.Minute)
		c.locked(func() {
			if n := len(c.requests); n < 5*60/30 {
				t.Errorf("%d requests in five minutes", n)
			}
		})
		c.server.Forbid(kubetest.Leases, false)
		if took := c.waitLeads(p, true); took > confirmTimeout+confirmationTTL+confirmInterval {
			t.Errorf("it leads %v after the permission is granted", took)
		}
		c.wantRunning(p)
	})
}

// Each request and each response takes 0.6 s.
func TestLeaseLockSlowAPIKeepsLeader(t *testing.T) {
	for name, standby := range map[string]bool{"with standby": true, "without standby": false} {
		t.Run(name, func(t *testing.T) {
			withLeaseAPI(t, func(c *leaseTest) {
				c.delay = 600 * time.Millisecond
				p := c.start("first", standby, discardLog)
				c.waitLeads(p, true)
				c.wantThroughout(p, true, 5*time.Minute)
				if !p.Stats.Leader.Load() {
					t.Error("it does not hold the lease")
				}
			})
		})
	}
}

func TestLeaseLockNoWaitAfterResignation(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		first := c.start("first", true, discardLog)
		c.waitLeads(first, true)
		second := c.start("second", true, discardLog)
		c.wantThroughout(second, false, time.Minute)
		first.stop()
		if took := c.waitLeads(second, true, first); took > time.Second {
			t.Errorf("it leads %v after the other has resigned", took)
		}
	})
}

// A Lease that another client changes is lost at once, and acquired again when it is free.
func TestLeaseLockLostWhenChanged(t *testing.T) {
	for name, change := range map[string]func(c *leaseTest){
		"deleted": func(c *leaseTest) {
			c.server.Delete(kubetest.Leases, "team-a", c.server.Names(kubetest.Leases, "team-a")[0])
		},
		"overwritten": func(c *leaseTest) { c.editLease(func(o kubetest.Object) { o["spec"] = kubetest.Object{} }) },
		"the holder edited": func(c *leaseTest) {
			c.editLease(func(o kubetest.Object) { o["spec"].(kubetest.Object)["holderIdentity"] = "other" })
		},
		"the holder removed": func(c *leaseTest) {
			c.editLease(func(o kubetest.Object) { o["spec"].(kubetest.Object)["holderIdentity"] = "" })
		},
		"renewTime edited": func(c *leaseTest) {
			c.editLease(func(o kubetest.Object) { o["spec"].(kubetest.Object)["renewTime"] = "2001-01-01T00:00:00.000000Z" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			withLeaseAPI(t, func(c *leaseTest) {
				first := c.start("first", true, discardLog)
				c.waitLeads(first, true)
				second := c.start("second", true, discardLog)
				c.wantThroughout(first, true, 15*time.Second+200*time.Millisecond)
				change(c)
				if took := c.waitLeads(first, false, second); took > leaseRenewInterval+20*time.Millisecond {
					t.Errorf("it leads for %v without the lease", took)
				}
				began := time.Now()
				for !first.Stats.ActsAsLeader.Load() && !second.Stats.ActsAsLeader.Load() {
					if time.Sleep(10 * time.Millisecond); time.Since(began) > 20*time.Second {
						t.Fatal("neither leads")
					}
				}
				if first.Stats.ActsAsLeader.Load() && second.Stats.ActsAsLeader.Load() {
					t.Error("both lead")
				}
				if took := time.Since(began); took < confirmationTTL-leaseRenewInterval/2 {
					t.Errorf("the next leader leads after %v", took)
				}
			})
		})
	}
}

func TestLeaseLockStopsWithoutConfirmation(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		first := c.start("first", true, discardLog)
		c.waitLeads(first, true)
		c.locked(func() { c.down = true })
		if took := c.waitLeads(first, false); took < time.Second || took > confirmationTTL {
			t.Errorf("it leads for %v without a response from the server, want up to 2 s", took)
		}
		c.locked(func() { c.down = false })
		if took := c.waitLeads(first, true); took > 4*time.Second {
			t.Errorf("it leads %v after the server is back", took)
		}
	})
}

func TestLeaseLockWithoutStandbyOutage(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		p := c.start("first", false, discardLog)
		c.waitLeads(p, true)
		c.locked(func() { c.down = true })
		c.wantThroughout(p, true, 10*time.Minute)
		if p.Stats.Leader.Load() {
			t.Error("it still claims to hold the lease after ten minutes")
		}
		c.editLease(func(o kubetest.Object) { o["spec"].(kubetest.Object)["holderIdentity"] = "other" })
		c.locked(func() { c.down = false })
		c.waitLeads(p, false)
		time.Sleep(time.Minute)
		if !p.Stats.ActsAsLeader.Load() { // the other holder does not renew it
			t.Error("it does not lead again")
		}
	})
}

// An API server that asks for a longer pause than the Lease lasts does not cost the leadership.
// Requests still become less frequent, and the pause is logged.
func TestLeaseLockLongRetryAfter(t *testing.T) {
	withLeaseAPI(t, func(c *leaseTest) {
		log, out := testutil.NewLog()
		first := c.start("first", true, log)
		c.waitLeads(first, true)
		var done atomic.Bool
		c.locked(func() {
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
		if first.Stats.ActsAsLeader.Load() {
			t.Error("it leads without a confirmation")
		}
		c.locked(func() {
			if n := len(c.requests); n > 8 {
				t.Errorf("%d requests in 9 s, want one every 3.3 s to read, and one to update: %q", n, c.requests)
			}
		})
		done.Store(true)
		if took := c.waitLeads(first, true); took > 4*time.Second {
			t.Errorf("it leads %v after the server accepts requests again", took)
		}
		if n := out.Count("cannot be updated"); n != 1 || !strings.Contains(out.String(), "the server asks for a pause of 30s") || out.Count("Lost the lease") > 0 {
			t.Errorf("the log says:\n%s", out)
		}
		if first.Stats.Failures(stats.PeerKubernetes) == 0 {
			t.Error("no call is counted as failed")
		}
	})
}
