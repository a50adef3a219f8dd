package discovery

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// calls is how many calls of a method, or messages of its streams, all etcds of this process
// have had.
func grpcCalls(t *testing.T, metric, method string) (n float64) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "grpc_method" && l.GetValue() == method {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

var asRoot = []string{"ETCD_AUTH_USERNAME", "root", "ETCD_AUTH_PASSWORD", "s3cret"}

// TestEtcdRenewalsNeedNoLogin: each costs etcd a tenth of a second. It is not parallel, since all
// etcds of the process count together.
func TestEtcdRenewalsNeedNoLogin(t *testing.T) {
	r := newRegistry(t)
	requireAuth(t, r.Stack.Etcd.Endpoint(), "s3cret")
	for range 2 { // the first to come leads, the other stands by
		p := newEtcdAt(t, r.Stack.Etcd.Endpoint(), asRoot...)
		testutil.Start(t, p.Watch)
		startHold(t, p, true)
		testutil.Until(t, func() error {
			if !p.Fleet.Stats.ActsAsLeader.Load() && !p.Fleet.Stats.OtherLeader.Load() {
				return errors.New("it neither leads nor stands by")
			}
			return connected(p)
		})
	}
	var logins, renewals float64 // when there was a login last: its streams may have to come yet
	testutil.Until(t, func() error {
		renewed := grpcCalls(t, "grpc_server_msg_received_total", "LeaseKeepAlive")
		if now := grpcCalls(t, "grpc_server_started_total", "Authenticate"); now != logins {
			logins, renewals = now, renewed
		}
		if renewed-renewals < 4 {
			return fmt.Errorf("%v renewals of the leader's lease since login %v, want four", renewed-renewals, logins)
		}
		return nil
	})
}

// admin is a client that may do everything.
func rootClient(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Username: "root", Password: "s3cret", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ec.Close() })
	return ec
}

// TestEtcdRetriesAfterLaterRefusal for ever, and said once; from the start it is the end.
func TestEtcdRetriesAfterLaterRefusal(t *testing.T) {
	t.Parallel()
	type change func(root *clientv3.Client, grants func() error) error
	for name, c := range map[string]struct {
		refuse, grant change
		says          string
	}{
		"the password": {
			func(root *clientv3.Client, _ func() error) error {
				_, err := root.UserChangePassword(t.Context(), "metrics", "an0ther")
				return err
			},
			func(root *clientv3.Client, _ func() error) error {
				_, err := root.UserChangePassword(t.Context(), "metrics", "s3cret")
				return err
			},
			"with ETCD_AUTH_USERNAME and ETCD_AUTH_PASSWORD: etcdserver: authentication failed",
		},
		"the user": {
			func(root *clientv3.Client, _ func() error) error {
				_, err := root.UserDelete(t.Context(), "metrics")
				return err
			},
			func(root *clientv3.Client, _ func() error) error {
				_, err := root.UserAdd(t.Context(), "metrics", "s3cret")
				_, err2 := root.UserGrantRole(t.Context(), "metrics", "metrics")
				return errors.Join(err, err2)
			},
			"etcdserver: authentication failed",
		},
		"the role": {
			func(root *clientv3.Client, _ func() error) error {
				_, err := root.UserRevokeRole(t.Context(), "metrics", "metrics")
				return err
			},
			func(root *clientv3.Client, _ func() error) error {
				_, err := root.UserGrantRole(t.Context(), "metrics", "metrics")
				return err
			},
			"etcdserver: permission denied",
		},
		"a permission": {
			func(root *clientv3.Client, _ func() error) error {
				_, err := root.RoleRevokePermission(t.Context(), "metrics", "a", "z")
				return err
			},
			func(_ *clientv3.Client, grants func() error) error { return grants() },
			"etcdserver: permission denied",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			endpoint := r.Stack.Etcd.Endpoint()
			requireAuth(t, endpoint, "s3cret")
			root := rootClient(t, endpoint)
			grants := func() error {
				_, err := root.RoleGrantPermission(t.Context(), "metrics", "a", "z", clientv3.PermissionType(clientv3.PermReadWrite))
				return err
			}
			_, err1 := root.RoleAdd(t.Context(), "metrics")
			_, err2 := root.UserAdd(t.Context(), "metrics", "s3cret")
			_, err3 := root.UserGrantRole(t.Context(), "metrics", "metrics")
			if err := errors.Join(err1, err2, err3, grants()); err != nil {
				t.Fatal(err)
			}
			user := []string{"ETCD_AUTH_USERNAME", "metrics", "ETCD_AUTH_PASSWORD", "s3cret"}
			p := newEtcdAt(t, endpoint, user...)
			log, out := testutil.NewLog()
			p.Log = log
			_, watch := testutil.Start(t, p.Watch)
			_, key := startHold(t, p, true)
			devstacktest.WaitLeads(t, &p.Fleet.Stats, true)
			testutil.Until(t, func() error { return connected(p) })

			if err := c.refuse(root, grants); err != nil {
				t.Fatal(err)
			}
			r.StopEtcd() // else those who are logged in may stay so
			r.StartEtcd(t)
			testutil.Until(t, func() error {
				if said := out.String(); !strings.Contains(said, c.says) {
					return fmt.Errorf("the log does not say %q:\n%s", c.says, said)
				}
				return nil
			})
			devstacktest.WaitLeads(t, &p.Fleet.Stats, false)
			late := newEtcdAt(t, endpoint, user...)
			_, ended := testutil.Start(t, late.Watch)
			if err := <-ended; err == nil {
				t.Error("who is refused from the start goes on")
			}
			if n := p.Fleet.Stats.Failures(stats.PeerEtcd); n < 2 {
				t.Errorf("%d calls are counted as failed", n)
			}

			if err := c.grant(root, grants); err != nil {
				t.Fatal(err)
			}
			devstacktest.WaitLeads(t, &p.Fleet.Stats, true)
			testutil.Until(t, func() error { return connected(p) })
			if _, err := root.Put(t.Context(), wire.LayoutV1.Key("dynamo", worker(3)), string(wire.LayoutV1.Value("dynamo", worker(3), "s"))); err != nil {
				t.Fatal(err)
			}
			waitWorker(t, p, 3)
			for what, ended := range map[string]<-chan error{"the watch": watch, "the unique instance": key} {
				select {
				case err := <-ended:
					t.Errorf("%s ended: %v", what, err)
				default:
				}
			}
			if n := out.Count("etcd is not connected"); n > 2 {
				t.Errorf("the log says %d times that etcd is not connected:\n%s", n, out)
			}
		})
	}
}
