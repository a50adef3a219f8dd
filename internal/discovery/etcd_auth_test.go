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

// grpcCalls returns how many calls of a method, or messages in its streams, all etcd servers of
// this process have received.
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

// Each login costs etcd a tenth of a second. The test is not parallel, because all etcd servers of
// the process share their counters.
func TestEtcdRenewalsNeedNoLogin(t *testing.T) {
	r := newRegistry(t)
	requireAuth(t, r.Stack.Etcd.Endpoint(), "s3cret")
	for range 2 { // the first program leads, and the other stands by
		p := newEtcdAt(t, r.Stack.Etcd.Endpoint(), asRoot...)
		testutil.Start(t, p.Watch)
		startHold(t, p, true)
		testutil.Until(t, func() error {
			if !p.Fleet.Stats.ActsAsLeader.Load() && !p.Fleet.Stats.OtherLeader.Load() {
				return errors.New("the program neither leads nor stands by")
			}
			return connected(p)
		})
	}
	var logins, renewals float64 // at the time of the last login, whose streams may not have started yet
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

// rootClient returns a client with all permissions.
func rootClient(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Username: "root", Password: "s3cret", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ec.Close() })
	return ec
}

// refusals are ways in which an etcd can refuse the user metrics, and how to undo them.
var refusals = map[string]struct {
	refuse, grant func(t *testing.T, root *clientv3.Client) error
	log           string
}{
	"the password": {
		func(t *testing.T, root *clientv3.Client) error {
			_, err := root.UserChangePassword(t.Context(), "metrics", "an0ther")
			return err
		},
		func(t *testing.T, root *clientv3.Client) error {
			_, err := root.UserChangePassword(t.Context(), "metrics", "s3cret")
			return err
		},
		"with ETCD_AUTH_USERNAME and ETCD_AUTH_PASSWORD: etcdserver: authentication failed",
	},
	"the user": {
		func(t *testing.T, root *clientv3.Client) error {
			_, err := root.UserDelete(t.Context(), "metrics")
			return err
		},
		func(t *testing.T, root *clientv3.Client) error {
			_, err := root.UserAdd(t.Context(), "metrics", "s3cret")
			_, err2 := root.UserGrantRole(t.Context(), "metrics", "metrics")
			return errors.Join(err, err2)
		},
		"etcdserver: authentication failed",
	},
	"the role": {
		func(t *testing.T, root *clientv3.Client) error {
			_, err := root.UserRevokeRole(t.Context(), "metrics", "metrics")
			return err
		},
		func(t *testing.T, root *clientv3.Client) error {
			_, err := root.UserGrantRole(t.Context(), "metrics", "metrics")
			return err
		},
		"etcdserver: permission denied",
	},
	"a permission": {
		func(t *testing.T, root *clientv3.Client) error {
			_, err := root.RoleRevokePermission(t.Context(), "metrics", "a", "z")
			return err
		},
		grantPermission,
		"etcdserver: permission denied",
	},
}

// grantPermission lets the role metrics read and write all keys of the test.
func grantPermission(t *testing.T, root *clientv3.Client) error {
	_, err := root.RoleGrantPermission(t.Context(), "metrics", "a", "z", clientv3.PermissionType(clientv3.PermReadWrite))
	return err
}

// After a success, a refusal is retried for ever and logged once. A refusal at the start is fatal.
func TestEtcdRetriesAfterLaterRefusal(t *testing.T) {
	t.Parallel()
	for name, c := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRefusal(t, c.refuse, c.grant, c.log)
		})
	}
}

func testRefusal(t *testing.T, refuse, grant func(*testing.T, *clientv3.Client) error, wantLog string) {
	r := newRegistry(t)
	endpoint := r.Stack.Etcd.Endpoint()
	requireAuth(t, endpoint, "s3cret")
	root := rootClient(t, endpoint)
	_, err1 := root.RoleAdd(t.Context(), "metrics")
	_, err2 := root.UserAdd(t.Context(), "metrics", "s3cret")
	_, err3 := root.UserGrantRole(t.Context(), "metrics", "metrics")
	if err := errors.Join(err1, err2, err3, grantPermission(t, root)); err != nil {
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

	if err := refuse(t, root); err != nil {
		t.Fatal(err)
	}
	r.StopEtcd() // otherwise the tokens of earlier logins may stay valid
	r.StartEtcd(t)
	testutil.Until(t, func() error {
		if got := out.String(); !strings.Contains(got, wantLog) {
			return fmt.Errorf("the log lacks %q:\n%s", wantLog, got)
		}
		return nil
	})
	devstacktest.WaitLeads(t, &p.Fleet.Stats, false)
	late := newEtcdAt(t, endpoint, user...)
	_, ended := testutil.Start(t, late.Watch)
	if err := <-ended; err == nil {
		t.Error("a program that is refused from the start continues")
	}
	if n := p.Fleet.Stats.Failures(stats.PeerEtcd); n < 2 {
		t.Errorf("%d calls are counted as failed, want at least two", n)
	}

	if err := grant(t, root); err != nil {
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
}
