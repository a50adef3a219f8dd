package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func noEnv(string) string { return "" }

// runningStack is a stack that runs in a separate goroutine, on free ports.
type runningStack struct {
	end            context.CancelFunc
	code           chan int
	stdout, stderr *testutil.Log
}

func start(t *testing.T, getenv func(string) string, args ...string) *runningStack {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &runningStack{end: cancel, code: make(chan int, 1), stdout: new(testutil.Log), stderr: new(testutil.Log)}
	args = append([]string{"--nats-port", "0", "--etcd-port", "0"}, args...)
	if !slices.Contains(args, "--no-metrics") {
		args = append(args, "--metrics-port", "0")
	}
	go func() { s.code <- run(ctx, args, getenv, s.stdout, s.stderr) }()
	t.Cleanup(cancel)
	testutil.Until(t, func() error {
		if !strings.Contains(s.stdout.String(), "Try next") {
			return fmt.Errorf("not up: %s\n%s", s.stdout, s.stderr)
		}
		return nil
	})
	return s
}

// stop ends the stack as a signal does.
func (s *runningStack) stop(t *testing.T) {
	t.Helper()
	s.end()
	select {
	case code := <-s.code:
		if code != 0 {
			t.Errorf("got exit code %d:\n%s", code, s.stderr)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("does not end:\n%s", s.stderr)
	}
}

// find returns the first match in the output.
func (s *runningStack) find(t *testing.T, expression string) string {
	t.Helper()
	found := regexp.MustCompile(expression).FindString(s.stdout.String())
	if found == "" {
		t.Fatalf("no %s in:\n%s", expression, s.stdout)
	}
	return found
}

func TestStackIsUpWhenItReportsSo(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	s := start(t, noEnv)

	nc, err := nats.Connect(s.find(t, `nats://[0-9.:]+`), nats.Timeout(testutil.WaitTimeout))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if js, _ := nc.JetStream(); js != nil {
		if _, err := js.AccountInfo(); err != nil {
			t.Error("JetStream:", err)
		}
	}
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{s.find(t, `http://127\.[0-9.:]+`)}})
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	got, err := ec.Get(t.Context(), "instances/dynamo/backend/generate:", clientv3.WithPrefix())
	if err != nil || got.Count != 3 {
		t.Errorf("got %v, %v; want three workers", got, err)
	}
	url := s.find(t, `http://localhost:[0-9]+/metrics`)
	testutil.Until(t, func() error {
		body, err := get(url)
		if err != nil {
			return err
		}
		workers := `llm_workers{component="backend",endpoint="generate",state="answering"} 3`
		if !strings.Contains(body, workers) || strings.Count(body, "\nllm_kv_hit_rate_isl_blocks{") != 3 {
			return fmt.Errorf("want %s and the hits of three workers:\n%s", workers, body)
		}
		return nil
	})

	s.stop(t)
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestStackMixedHasEveryRelease(t *testing.T) {
	s := start(t, noEnv, "--no-metrics", "--release", "mixed")
	s.find(t, `10 on backend/generate +mock workers of every release and event plane, namespace dynamo`)
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{s.find(t, `http://127\.[0-9.:]+`)}})
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	for prefix, want := range map[string]int64{
		"dynamo/components/backend/generate:":           3,
		"instances/dynamo/backend/generate:":            2,
		"v1/instances/dynamo/backend/generate/":         5,
		"v1/mdc/dynamo/backend/generate/":               5,
		"v1/event_channels/dynamo//":                    4, // of 0.9.1: loads and hits, on both event planes
		"v1/event_channels/namespace/dynamo/component/": 4, // of 1.6.1: loads and forward passes, on both event planes
	} {
		got, err := ec.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || got.Count != want {
			t.Errorf("%s: got %v, %v; want %d keys", prefix, got, err, want)
		}
	}
	s.stop(t)
}

func TestStackOfOneRelease(t *testing.T) {
	s := start(t, noEnv, "--no-metrics", "--release", "0.9.1", "--event-plane", "zmq", "--workers", "1")
	s.find(t, `1 on backend/generate +mock workers of release 0.9.1, namespace dynamo`)
	s.stop(t)
}

func TestStackOfServersAlone(t *testing.T) {
	dir := t.TempDir() + "/data"
	// The variables about other servers must not affect the stack.
	s := start(t, func(name string) string {
		return map[string]string{"NATS_AUTH_CREDENTIALS_FILE": "/missing", "ETCD_AUTH_CA": "/missing", "DYN_NAMESPACE": "mine"}[name]
	}, "--no-metrics", "--no-workers", "--data-dir", dir)
	for _, unwanted := range []string{"workers ", "curl", "page"} {
		if strings.Contains(s.stdout.String(), unwanted) {
			t.Errorf("mentions %s:\n%s", unwanted, s.stdout)
		}
	}
	for _, wanted := range []string{dir, "kept", "DYN_NAMESPACE=mine", "NATS_SERVER=nats://", "ETCD_ENDPOINTS=http://", "./cmd/mock_worker", "./cmd/metrics"} {
		if !strings.Contains(s.stdout.String(), wanted) {
			t.Errorf("does not mention %s:\n%s", wanted, s.stdout)
		}
	}
	s.stop(t)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("got %v, %v in the data directory, want those of NATS and etcd", left, err)
	}
}

func TestFlagsNameAPortInUse(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, flag := range []string{"--nats-port", "--etcd-port", "--metrics-port"} {
		args := []string{"--nats-port", "0", "--etcd-port", "0", "--metrics-port", "0", flag, port}
		var merged []string // kingpin accepts a flag only once
		for i := 0; i < len(args); i += 2 {
			if args[i] != flag || i == 6 {
				merged = append(merged, args[i], args[i+1])
			}
		}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), merged, noEnv, &stdout, &stderr)
		got := stderr.String()
		if code != 1 || !strings.Contains(got, ":"+port+" is already in use") || !strings.Contains(got, flag) || strings.Count(got, "\n") != 1 || stdout.Len() > 0 {
			t.Errorf("%s: got %d, %q, %q", flag, code, got, stdout.String())
		}
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFlagsRejectOnePortTwice(t *testing.T) {
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"--nats-port", "23791", "--etcd-port", "23791"}, noEnv, nil, &stderr)
	if code != 2 || !strings.Contains(stderr.String(), "--etcd-port 23791 is the port of --nats-port, too") {
		t.Errorf("got %d, %q", code, stderr.String())
	}
}

func TestFlagsNameInvalidFlag(t *testing.T) {
	for _, args := range [][]string{
		{"--workers", "0"}, {"--nats-port", "70000"}, {"--etcd-port=-1"}, {"--metrics-port", "http"}, {"--namespace", "a b"},
		{"--release", "0.9.2"}, {"--event-plane", "kafka"}, {"--event-plane", "zmq"}, {"--event-plane", "zmq", "--release", "mixed"}, {"--nonsense"}, {"nonsense"},
		{"--workers", "2", "--no-workers"}, {"--release", "0.1.0", "--no-workers"}, {"--event-plane", "nats", "--no-workers"}, {"--metrics-port", "0", "--no-metrics"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, noEnv, &stdout, &stderr)
		flag, _, _ := strings.Cut(args[0], "=")
		if code != 2 || !strings.Contains(stderr.String(), flag) || strings.Count(stderr.String(), "\n") != 1 || stdout.Len() > 0 {
			t.Errorf("%q: got %d, %q, %q", args, code, stderr.String(), stdout.String())
		}
	}
}
