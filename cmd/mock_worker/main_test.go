package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
	"dynamo-metrics/internal/zmtp"

	"github.com/nats-io/nats-server/v2/server"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func noEnv(string) string { return "" }

func TestMockWorkerNamesInvalidFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--workers", "0"}, `--workers "0": want a number from 1 to 10000`},
		{[]string{"--workers=many"}, `--workers "many"`},
		{[]string{"--release", "0.9.2"}, `--release "0.9.2": want one of 0.1.0, 0.1.1, 0.2.1, 0.3.0, 0.5.1, 0.6.1, 0.9.1, 1.6.1`},
		{[]string{"--event-plane", "kafka"}, `--event-plane "kafka": want one of nats, zmq`},
		{[]string{"--event-plane", "zmq"}, `--event-plane "zmq": want nats with release 0.5.1`},
		{[]string{"--release", "0.6.1", "--event-plane", "zmq"}, `--event-plane "zmq": want nats with release 0.6.1`},
		{[]string{"--release", "1.6.1", "--event-plane", "nats", "--nats-server", "none"}, `--nats-server "none": want servers`},
		{[]string{"--nats-server", "none"}, `--nats-server "none": want servers`},
		{[]string{"--release", "0.6.1", "--static"}, `--static: do not set it together with --release 0.6.1`},
		{[]string{"--host", "a/b"}, `--host "a/b"`},
		{[]string{"--seed=-1"}, `--seed "-1"`},
		{[]string{"--event-interval", "soon"}, `--event-interval "soon"`},
		{[]string{"--event-interval=-1"}, `--event-interval "-1"`},
		{[]string{"--event-interval", "10us"}, `--event-interval "10µs"`},
		{[]string{"--namespace", "a b"}, `--namespace "a b"`},
		{[]string{"--namespace", "a..b"}, `--namespace "a..b"`},
		{[]string{"--component", ""}, `--component ""`},
		{[]string{"--endpoint", "a.b"}, `--endpoint "a.b": want a name of letters, digits, "-" and "_"`},
		{[]string{"--nats-server", ""}, `--nats-server ""`},
		{[]string{"--nats-server", "http://h"}, `--nats-server "http://h": malformed`},
		{[]string{"--nats-server", "nats://user:secret@h:port"}, "--nats-server: server 1 of the list is malformed"},
		{[]string{"--nats-tls-ca", "/nowhere"}, "--nats-tls-ca: open /nowhere"},
		{[]string{"--nats-tls-cert", "/nowhere"}, `--nats-tls-cert "/nowhere": needs --nats-tls-key`},
		{[]string{"--nats-tls-ca", "/nowhere", "--nats-server", "none", "--release", "1.6.1"}, "--nats-tls-ca: needs --nats-server"},
		{[]string{"--etcd-endpoints", "http://h/path"}, `--etcd-endpoints "http://h:2379": want nothing after the port`},
		{[]string{"--etcd-endpoints", "http://h", "--static"}, "--etcd-endpoints: needs workers that are not --static"},
		{[]string{"--host", "localhost"}, "--host: needs --event-plane zmq"},
		{[]string{"--host", "localhost:5000"}, `--host "localhost:5000": want an address or the name of a host, without scheme and port`},
		{[]string{"--component", "back*"}, `--component "back*": want a name`},
		{[]string{"--event-interval", "1h1s"}, `--event-interval "1h1s": want seconds (2, 0.1) or a duration (100ms), from 0s to 1h0m0s`},
		{[]string{"--workers", "10001"}, `--workers "10001": want a number from 1 to 10000`},
		{[]string{"--wrokers", "2"}, "unknown long flag '--wrokers': did you mean --workers?"},
		{[]string{"--etcd-endpoints", ""}, `--etcd-endpoints ""`},
		{[]string{"--nonsense"}, "--nonsense"},
		{[]string{"nonsense"}, "nonsense"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), c.args, noEnv, &stdout, &stderr)
		got := stderr.String()
		if code != 2 || !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 || stdout.Len() > 0 {
			t.Errorf("%q: got %d, %q, %q; want 2 and one line with %q", c.args, code, got, stdout.String(), c.want)
		}
	}
}

// TestMockWorkerWarnsOfInvalidLogFilter checks that an invalid filter is not an error, because
// all of Dynamo's programs share DYN_LOG.
func TestMockWorkerWarnsOfInvalidLogFilter(t *testing.T) {
	s := start(t, func(name string) string {
		return map[string]string{"DYN_LOG": "inof", "NATS_SERVER": "nats://127.0.0.1:1"}[name]
	})
	testutil.Until(t, s.stderr.HasCount(`WARN mock_worker: DYN_LOG "inof": neither a level nor a known target: did you mean info?`, 1))
	testutil.Until(t, s.stderr.HasCount("NATS is not connected", 1))
	s.cancel()
	if code := <-s.code; code != 0 {
		t.Errorf("got exit code %d:\n%s", code, s.stderr)
	}
}

func TestMockWorkerPrintsHelpAndVersion(t *testing.T) {
	for flag, want := range map[string]string{
		"--help": "--event-interval", "-h": "--event-interval", "help": "--event-interval",
		"--version": "mock_worker " + cli.Version + "\n", "version": "mock_worker " + cli.Version + "\n",
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{flag}, noEnv, &stdout, &stderr)
		if code != 0 || !strings.Contains(stdout.String(), want) || stderr.Len() > 0 {
			t.Errorf("%s: got %d, %q, %q", flag, code, stdout.String(), stderr.String())
		}
	}
}

// testRun is a run in its own goroutine.
type testRun struct {
	cancel context.CancelFunc
	code   chan int
	stderr *testutil.Log
}

func start(t *testing.T, getenv func(string) string, args ...string) *testRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &testRun{cancel: cancel, code: make(chan int, 1), stderr: new(testutil.Log)}
	go func() { s.code <- run(ctx, args, getenv, nil, s.stderr) }()
	t.Cleanup(cancel)
	return s
}

func keys(t *testing.T, ec *clientv3.Client, prefix string) (names []string) {
	t.Helper()
	got, err := ec.Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		names = append(names, string(kv.Key))
	}
	return names
}

func TestMockWorkerDeregistersWhenCancelled(t *testing.T) {
	stack := devstacktest.Start(t)
	ec := stack.Client(t)
	env := func(name string) string {
		return map[string]string{"NATS_SERVER": stack.NATS.URL(), "ETCD_ENDPOINTS": stack.Etcd.Endpoint()}[name]
	}
	s := start(t, env, "--workers", "2", "--release", "0.2.1", "--component", "my_component", "--endpoint", "my_endpoint")
	testutil.Until(t, func() error {
		if got := keys(t, ec, "dynamo/components/my_component/my_endpoint:"); len(got) != 2 {
			return fmt.Errorf("got keys %q, want two:\n%s", got, s.stderr)
		}
		return nil
	})
	if err := s.stderr.HasCount("INFO mock_worker: Starting Mock Worker on Endpoint: dynamo/my_component/my_endpoint", 1)(); err != nil {
		t.Error(err)
	}
	if _, err := stack.Conn(t).Request(wire.StatsSubject("dynamo_my_component"), nil, 10*time.Second); err != nil {
		t.Error("stats:", err)
	}
	s.cancel()
	if code := <-s.code; code != 0 {
		t.Errorf("got exit code %d:\n%s", code, s.stderr)
	}
	if got := keys(t, ec, ""); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

func TestMockWorkerStaticNeedsNoEtcd(t *testing.T) {
	stack := devstacktest.Start(t)
	nc := stack.Conn(t)
	s := start(t, func(name string) string { // the environment is shared with other programs: static workers ignore its etcd settings
		return map[string]string{"ETCD_ENDPOINTS": "ftp://", "ETCD_AUTH_CA": "/nowhere"}[name]
	}, "--static", "--nats-server", stack.NATS.URL())
	testutil.Until(t, func() error {
		_, err := nc.Request(wire.StatsSubject("dynamo_backend"), nil, 10*time.Second)
		return err
	})
	s.cancel()
	if code := <-s.code; code != 0 {
		t.Errorf("got exit code %d:\n%s", code, s.stderr)
	}
}

func TestMockWorkerOverZMQNeedsNoNATS(t *testing.T) {
	stack := devstacktest.Start(t)
	ec := stack.Client(t)
	s := start(t, noEnv, "--release", "1.6.1", "--nats-server", "none", "--etcd-endpoints", stack.Etcd.Endpoint(), "--host", "localhost", "--correlated")
	const prefix = "v1/event_channels/namespace/dynamo/component/backend/endpoint/generate/topic/" + wire.TopicLoad + "/"
	testutil.Until(t, func() error {
		if got := keys(t, ec, prefix); len(got) != 1 {
			return fmt.Errorf("got channels %q:\n%s", got, s.stderr)
		}
		return nil
	})
	got, err := ec.Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.ParseChannel("dynamo", string(got.Kvs[0].Key), got.Kvs[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testutil.WaitTimeout)
	defer cancel()
	sub := zmtp.Sub{Address: c.Address, Topics: []string{wire.TopicLoad}}
	if err := sub.Run(ctx, func([][]byte) { cancel() }); err != nil || ctx.Err() != context.Canceled {
		t.Errorf("no load was published: %v, %v\n%s", err, ctx.Err(), s.stderr)
	}
	s.cancel()
	if code := <-s.code; code != 0 {
		t.Errorf("got exit code %d:\n%s", code, s.stderr)
	}
	if got := keys(t, ec, ""); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

func TestMockWorkerWaitsForServers(t *testing.T) {
	stack := devstacktest.Start(t)
	ec := stack.Client(t)
	natsURL, endpoint := stack.NATS.URL(), stack.Etcd.Endpoint()
	stack.StopNATS()
	stack.StopEtcd()

	s := start(t, noEnv, "--nats-server", natsURL, "--etcd-endpoints", endpoint)
	testutil.Until(t, s.stderr.HasCount("NATS is not connected", 1))
	stack.StartNATS(t)
	testutil.Until(t, s.stderr.HasCount("etcd is not connected", 1))
	stack.StartEtcd(t)
	testutil.Until(t, func() error {
		if got := keys(t, ec, "instances/dynamo/backend/generate:"); len(got) != 1 {
			return fmt.Errorf("got keys %q:\n%s", got, s.stderr)
		}
		return nil
	})
	if n := strings.Count(s.stderr.String(), "is not connected"); n != 2 {
		t.Errorf("logged %d times that a server is not connected, want once each:\n%s", n, s.stderr)
	}
	s.cancel()
	if code := <-s.code; code != 0 {
		t.Errorf("got exit code %d:\n%s", code, s.stderr)
	}
}

func TestMockWorkerEndsWhileWaiting(t *testing.T) {
	s := start(t, noEnv, "--nats-server", "nats://127.0.0.1:1")
	testutil.Until(t, s.stderr.HasCount("NATS is not connected", 1))
	s.cancel()
	if code := <-s.code; code != 0 {
		t.Errorf("got exit code %d:\n%s", code, s.stderr)
	}
}

func TestMockWorkerEndsOnRejectedCredentials(t *testing.T) {
	locked, err := devstack.NATS(devstack.NATSConfig{Dir: t.TempDir(), Tune: func(o *server.Options) { o.Authorization = "secret" }})
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	for _, c := range []struct{ server, want string }{
		{locked.URL(), "Authorization Violation"},
		{strings.Replace(locked.URL(), "nats://", "nats://wrong@", 1), "Authorization Violation"},
	} {
		s := start(t, noEnv, "--nats-server", c.server)
		code, got := <-s.code, s.stderr.String()
		if code != 1 || !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 || strings.Contains(got, "secret") || strings.Contains(got, "wrong") {
			t.Errorf("%s: got %d, %q; want 1 and one line with %q", c.server, code, got, c.want)
		}
	}
}
