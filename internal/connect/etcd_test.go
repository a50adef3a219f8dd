package connect

import (
	"context"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

func startEtcd(t *testing.T, tune func(*embed.Config)) *devstack.EtcdServer {
	t.Helper()
	s, err := devstack.Etcd(devstack.EtcdConfig{Dir: t.TempDir(), Tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// checkEtcd makes a client and puts a key. It returns the text of the error, or nothing.
func checkEtcd(t *testing.T, endpoints string, getenv func(string) string) string {
	t.Helper()
	log, journal := testutil.NewLog()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ec, err := DialEtcd(ctx, endpoints, getenv, log)
	if err != nil {
		return err.Error()
	}
	if ec == nil {
		t.Fatalf("neither connected nor failed in 10 s: %s", journal)
	}
	defer ec.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := ec.Put(ctx, "k", "v"); err != nil {
		return "put: " + err.Error()
	}
	return ""
}

// requireUser makes an etcd require a user.
func requireUser(t *testing.T, s *devstack.EtcdServer) {
	t.Helper()
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	ctx := t.Context()
	if _, err := ec.UserAdd(ctx, "root", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := ec.RoleAdd(ctx, "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := ec.UserGrantRole(ctx, "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := ec.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestEtcdUserAndPassword(t *testing.T) {
	s := startEtcd(t, nil)
	good := env("ETCD_AUTH_USERNAME", "root", "ETCD_AUTH_PASSWORD", "secret")
	if got := checkEtcd(t, s.Endpoint(), good); got != "" {
		t.Error("with a user that the server does not require:", got)
	}
	requireUser(t, s)
	if got := checkEtcd(t, s.Endpoint(), good); got != "" {
		t.Error(got)
	}
	got := checkEtcd(t, s.Endpoint(), env("ETCD_AUTH_USERNAME", "root", "ETCD_AUTH_PASSWORD", "secret2"))
	for _, want := range []string{s.Endpoint(), "ETCD_AUTH_USERNAME", "ETCD_AUTH_PASSWORD", "authentication failed"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	if strings.Contains(got, "secret") {
		t.Errorf("the error shows a secret: %q", got)
	}
	if got := checkEtcd(t, s.Endpoint(), env()); !strings.Contains(got, "user name is empty") {
		t.Errorf("without a user: got %q", got)
	}
}

func TestEtcdLogsInWhenServerStarts(t *testing.T) {
	t.Parallel()
	s := startEtcd(t, nil)
	requireUser(t, s)
	config, endpoint := s.Config(), s.Endpoint()
	s.Close()

	log, journal := testutil.NewLog()
	ready := make(chan *clientv3.Client, 1)
	go func() {
		ec, err := DialEtcd(t.Context(), endpoint, env("ETCD_AUTH_USERNAME", "root", "ETCD_AUTH_PASSWORD", "secret"), log)
		if err != nil {
			t.Error(err)
		}
		ready <- ec
	}()
	testutil.Until(t, journal.HasCount("etcd is not connected", 1))
	s = devstacktest.StartWithRetry(t, func() (*devstack.EtcdServer, error) { return devstack.Etcd(config) })
	t.Cleanup(s.Close)
	ec := <-ready
	defer ec.Close()
	if _, err := ec.Put(t.Context(), "k", "v"); err != nil {
		t.Error(err)
	}
	if n := journal.Count("\n"); n != 2 || journal.Count("Connected to etcd") != 1 {
		t.Errorf("got:\n%s", journal)
	}
}

func TestEtcdDoesNotWaitForServer(t *testing.T) {
	log, _ := testutil.NewLog()
	start := time.Now()
	ec, err := DialEtcd(t.Context(), "127.0.0.1:1", env(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestEtcdStopsWithContext(t *testing.T) {
	log, _ := testutil.NewLog()
	user := env("ETCD_AUTH_USERNAME", "root", "ETCD_AUTH_PASSWORD", "secret")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	ec, err := DialEtcd(ctx, "127.0.0.1:1", user, log)
	if ec != nil || err != nil {
		t.Errorf("got %v, %v; want neither", ec, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ec, err = DialEtcd(ctx, "127.0.0.1:1", user, log)
	if want := "connect to etcd at http://127.0.0.1:1: "; ec != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, %v; want an error that begins with %q", ec, err, want)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestEtcdClientOutlivesContext(t *testing.T) {
	s := startEtcd(t, nil)
	log, _ := testutil.NewLog()
	ctx, cancel := context.WithCancel(t.Context())
	ec, err := DialEtcd(ctx, s.Endpoint(), env(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	cancel()
	if _, err := ec.Put(t.Context(), "k", "v"); err != nil {
		t.Error(err)
	}
}

func TestEtcdEndpointsRejectInvalid(t *testing.T) {
	for value, want := range map[string]string{
		"http://alice:secret@h:2379": "ETCD_AUTH_USERNAME",
		"http://h:2379/v3":           "nothing after the port",
		"http://h,https://h":         "http for all endpoints, or https for all",
		"ftp://h":                    "scheme is none of http, https",
		"":                           "a name is empty",
	} {
		got := checkEtcd(t, value, env())
		if !strings.HasPrefix(got, "--etcd-endpoints") || !strings.Contains(got, want) || strings.Contains(got, "secret") {
			t.Errorf("%q: got %q, want %q in it", value, got, want)
		}
	}
}

func TestEtcdCredentialsNeedBothVariables(t *testing.T) {
	for _, pair := range [][2]string{{"ETCD_AUTH_USERNAME", "ETCD_AUTH_PASSWORD"}, {"ETCD_AUTH_CLIENT_CERT", "ETCD_AUTH_CLIENT_KEY"}} {
		for i := range pair {
			got := checkEtcd(t, "h", env(pair[i], "x"))
			if want := pair[i] + " is set, but not " + pair[1-i] + ": want both or neither"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}
