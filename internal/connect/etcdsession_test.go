package connect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/testutil"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
)

func newSessions(t *testing.T, getenv func(string) string, endpoints ...string) (*EtcdSessions, *testutil.Log) {
	t.Helper()
	log, journal := testutil.NewLog()
	e, err := NewEtcdEndpoints(strings.Join(endpoints, ","), getenv, log)
	if err != nil {
		t.Fatal(err)
	}
	return e.Sessions(), journal
}

func TestEtcdSessionsRotateEndpoints(t *testing.T) {
	t.Parallel()
	s := startEtcd(t, nil)
	sessions, _ := newSessions(t, env(), "http://127.0.0.1:1", s.Endpoint(), "http://127.0.0.1:2")
	_, err := sessions.Open(t.Context())
	if want := "connect to etcd at http://127.0.0.1:1: "; err == nil || !strings.HasPrefix(err.Error(), want+"dial tcp 127.0.0.1:1: ") || !strings.HasSuffix(err.Error(), "connection refused") {
		t.Fatalf("got %v, want %q and the reason", err, want)
	}
	if sessions.Failed(err) {
		t.Error("after one failure, all endpoints count as tried")
	}
	session, err := sessions.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	got, err := session.Get(t.Context(), "k")
	if err != nil || session.Endpoint != s.Endpoint() {
		t.Errorf("at %s: %v", session.Endpoint, err)
	}
	if err := session.CheckCluster(got.Header); err != nil {
		t.Error(err)
	}
	sessions.Succeeded()
	for i, want := range []bool{false, false, true, true} {
		if got := sessions.Failed(errors.New("x")); got != want {
			t.Errorf("failure %d: all tried: %v, want %v", i, got, want)
		}
	}
}

func TestPlainMessageStripsGRPCPrefix(t *testing.T) {
	for message, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: "dial tcp 127.0.0.1:1: connect: connection refused",
		`last connection error: connection error: desc = "error reading server preface: \"x\""`:                        `error reading server preface: "x"`,
		`connection error: desc = half "`: `connection error: desc = half "`,
		"etcdserver: no leader":           "etcdserver: no leader",
		"":                                "",
	} {
		if got := plainMessage(message); got != want {
			t.Errorf("%s: got %q, want %q", message, got, want)
		}
	}
}

func TestEtcdSessionFailsFastWithoutServer(t *testing.T) {
	t.Parallel()
	s := startEtcd(t, nil)
	sessions, _ := newSessions(t, env(), s.Endpoint())
	session, err := sessions.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	s.Close()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := session.Get(ctx, "k"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v after %v, want an error at once, that no server answers", err, time.Since(start))
	}
}

func TestEtcdSessionsPermanentError(t *testing.T) {
	t.Parallel()
	denied := fmt.Errorf("list: %w", rpctypes.ErrPermissionDenied)
	sessions, _ := newSessions(t, env(), "a", "b")
	if sessions.Failed(denied); sessions.PermanentError() != nil {
		t.Error("the error is permanent before the other endpoint was tried")
	}
	if sessions.Failed(errors.New("unreachable")); sessions.PermanentError() != denied {
		t.Errorf("got %v, want the authentication error", sessions.PermanentError())
	}
	sessions.Succeeded()
	for range 5 {
		if sessions.Failed(denied); sessions.PermanentError() != nil {
			t.Error("the error is permanent although a session has succeeded before")
		}
	}
}

func TestEtcdSessionsClusterReplacement(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sessions, _ := newSessions(t, env(), "a", "b", "c")
		check := func(id uint64, want string) {
			t.Helper()
			session := &EtcdSession{Endpoint: sessions.Endpoint(), sessions: sessions}
			err := session.CheckCluster(&etcdserverpb.ResponseHeader{ClusterId: id})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("cluster %x at %s: got %v, want %q", id, sessions.Endpoint(), err, want)
			}
			if err != nil {
				sessions.Failed(err)
			} else {
				sessions.Succeeded()
				if err := session.CheckCluster(&etcdserverpb.ResponseHeader{ClusterId: id + 1}); err == nil {
					t.Error("the session continues with another cluster")
				}
			}
		}
		fail := func() { sessions.Failed(errors.New("unreachable")) }
		check(1, "")
		fail()
		const other = " belongs to another cluster (2) than before (1)"
		check(2, "etcd at http://b:2379"+other)
		fail()
		fail()
		check(2, "etcd at http://b:2379"+other) // still its only endpoint
		check(2, "")                            // most endpoints belong to it now
		fail()
		check(1, "etcd at http://a:2379 belongs to another cluster (1) than before (2)")
		fail()
		fail()
		time.Sleep(replaceAfter)
		check(1, "etcd at http://a:2379 belongs to another cluster (1) than before (2)")
		fail()
		fail()
		time.Sleep(time.Second)
		check(1, "") // the old cluster has been unreachable for replaceAfter
	})
}

func TestEtcdSessionsChooseMajorityCluster(t *testing.T) {
	t.Parallel()
	named := func(name string) string {
		return startEtcd(t, func(c *embed.Config) { c.InitialClusterToken = name }).Endpoint()
	}
	a, b := named("a"), named("b")
	other := strings.Replace(b, "127.0.0.1", "localhost", 1)
	for _, endpoints := range [][]string{{a, b, other}, {b, other, a, "http://127.0.0.1:1"}} {
		sessions, _ := newSessions(t, env(), endpoints...)
		for range endpoints {
			session, err := sessions.Open(t.Context())
			if err == nil {
				got, err2 := session.Get(t.Context(), "k")
				if err = err2; err == nil {
					err = session.CheckCluster(got.Header)
				}
				session.Close()
			}
			if good := sessions.Endpoint() == b || sessions.Endpoint() == other; (err == nil) != good {
				t.Errorf("at %s: %v", sessions.Endpoint(), err)
			}
			sessions.current = (sessions.current + 1) % len(endpoints) // without a failure
		}
	}
	sessions, journal := newSessions(t, env(), a, b)
	session, err := sessions.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if journal.Count("endpoints of several etcd clusters") != 1 {
		t.Errorf("the log says: %s", journal)
	}
}
