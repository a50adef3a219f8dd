package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"dynamo-metrics/internal/app"
	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"
)

// background runs a command until stop, which returns its exit code.
func background(t *testing.T, command func(ctx context.Context) int) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	code, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		code = command(ctx)
	}()
	stop = func() int {
		cancel()
		<-ended
		return code
	}
	t.Cleanup(func() { stop() })
	return stop
}

// runningInstance runs metrics in this process, connected to a stack's servers.
func runningInstance(t *testing.T, s *devstacktest.Stack) *instance {
	t.Helper()
	port, err := devstack.FreePort("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	var messages testutil.Log
	background(t, func(ctx context.Context) int {
		return app.Main(ctx, []string{"--nats-server", s.NATS.URL(), "--etcd-endpoints", s.Etcd.Endpoint(),
			"--host", "127.0.0.1", "--metrics-port", strconv.Itoa(port), "--poll-interval", "0.1"}, noEnv, io.Discard, &messages)
	})
	m := &instance{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	testutil.Until(t, func() error {
		_, err := m.get(t.Context(), "/-/ready?strict=true")
		return err
	})
	return m
}

func TestLoadCommandsLoadARunningInstance(t *testing.T) {
	t.Parallel()
	s := devstacktest.Start(t)
	m := runningInstance(t, s)
	servers := []string{"--nats-server", s.NATS.URL()}
	ofWorkers := append([]string{"load", "workers", "--workers", "50", "--etcd-endpoints", s.Etcd.Endpoint()}, servers...)
	var messages testutil.Log
	stop := background(t, func(ctx context.Context) int { return run(ctx, ofWorkers, noEnv, io.Discard, &messages) })
	if err := m.waitForSeries(t.Context(), "llm_kv_blocks_active{", 50); err != nil {
		t.Fatalf("%v: %s", err, &messages)
	}
	testutil.Until(t, func() error {
		if want := "50 workers on dynamo/backend/load_metrics"; !strings.Contains(messages.String(), want) {
			return fmt.Errorf("got %q, want it to contain %q", &messages, want)
		}
		return nil
	})

	var again testutil.Log
	if code := run(t.Context(), ofWorkers, noEnv, io.Discard, &again); code != 1 || !strings.Contains(again.String(), "already has a load of workers") {
		t.Errorf("a second load: exit code %d, %q; want 1, and the reason", code, &again)
	}

	var published testutil.Log
	hits := append([]string{"load", "hits", "--workers", "50", "--rate", "1000", "--duration", "0.5"}, servers...)
	if code := run(t.Context(), hits, noEnv, io.Discard, &published); code != 0 {
		t.Fatalf("exit code %d: %s", code, &published)
	}
	_, rest, _ := strings.Cut(published.String(), "Published ")
	number, _, _ := strings.Cut(rest, " hit-rate events")
	n, err := strconv.Atoi(strings.ReplaceAll(number, ",", ""))
	if err != nil || n < 50 {
		t.Fatalf("got %q, want the number of published events", &published)
	}
	for series, want := range map[string]int{countedSeries: n, "llm_kv_hit_rate_events_total": n} {
		if err := m.waitForSum(t.Context(), series, want); err != nil {
			t.Error(err)
		}
	}

	if code := stop(); code != 0 || !strings.Contains(messages.String(), "50 workers have deregistered") {
		t.Errorf("exit code %d, %q; want 0, and that the workers have deregistered", code, &messages)
	}
	if err := m.waitForSeries(t.Context(), "llm_kv_blocks_active{", 0); err != nil {
		t.Error(err)
	}
}

func TestLoadCommandsReportMissingServersInOneLine(t *testing.T) {
	t.Parallel()
	s := devstacktest.Start(t)
	for args, want := range map[string]string{
		"load hits --nats-server nats://user:secret@127.0.0.1:1":                         "connect to NATS at nats://127.0.0.1:1: ",
		"load workers --nats-server 127.0.0.1:1 --etcd-endpoints " + s.Etcd.Endpoint():   "connect to NATS at nats://127.0.0.1:1: ",
		"load workers --etcd-endpoints http://127.0.0.1:1 --nats-server " + s.NATS.URL(): "etcd at http://127.0.0.1:1: no answer in 5s",
		"load workers --etcd-endpoints ftp://127.0.0.1:1 --nats-server " + s.NATS.URL():  `--etcd-endpoints "ftp://127.0.0.1:1": malformed`,
		"load hits --nats-server http://127.0.0.1:1":                                     `--nats-server "http://127.0.0.1:1": malformed`,
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			var messages testutil.Log
			code := run(t.Context(), strings.Fields(args), noEnv, io.Discard, &messages)
			got := messages.String()
			if code != 1 || !strings.Contains(got, want) || strings.Count(got, "\n") != 1 || strings.Contains(got, "secret") {
				t.Errorf("exit code %d, %q; want 1, and one line with %q", code, got, want)
			}
		})
	}
}
