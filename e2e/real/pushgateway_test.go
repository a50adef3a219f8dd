//go:build real

package real

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"

	"github.com/google/go-cmp/cmp"
)

// defaultGroup is the group that the program pushes to unless a flag sets another. The
// Pushgateway itself adds the empty instance.
var defaultGroup = map[string]string{"job": "dynamo_push_metrics", "instance": ""}

// pushing starts the program in push mode, with its own HTTP server, and the original's
// workers.
func pushing(t *testing.T, pushURL string, flags ...string) (*metrics, []*replayed) {
	t.Helper()
	s := startServers(t)
	workers := s.replayOriginals()
	flags = append([]string{"--poll-interval", "0.2", "--push", "--push-url", pushURL, "--push-interval", "1"}, flags...)
	return s.metrics(watchFlags(flags...)...), workers
}

// waitForPushes waits until n more pushes have ended with this result.
func (m *metrics) waitForPushes(result string, n int) {
	m.T.Helper()
	first := -1
	testutil.Until(m.T, func() error {
		p, err := m.scrape()
		if err != nil {
			return err
		}
		count, err := strconv.Atoi(p[`dynamo_metrics_push_total{result="`+result+`"}`])
		if first < 0 {
			first = count
		}
		if err == nil && count < first+n {
			err = fmt.Errorf("%d pushes with result %s, want %d", count-first, result, n)
		}
		return err
	})
}

// stableFamilies reduces families to what does not change between scrapes: the values of
// workers except for the ages of their loads, and only the names of all others.
func stableFamilies(all map[string]family) map[string]family {
	for name, f := range all {
		workers := strings.HasPrefix(name, "llm_")
		if !workers || name == "llm_worker_load_age_seconds" {
			for labels := range f.Series {
				f.Series[labels] = "…"
			}
		}
		if !workers && !strings.HasPrefix(name, "dynamo_metrics_") {
			f.Help = "…" // the Pushgateway has metrics of these names, too, and shows its own help
		}
		all[name] = f
	}
	return all
}

func TestPushgatewayHoldsWhatIsServed(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	m, _ := pushing(t, g.url)
	m.waitForPolls(2)
	m.waitForPushes("ok", 1)
	testutil.Until(t, func() error {
		text, err := get(m.url + "/metrics")
		if err != nil {
			return err
		}
		served, err := families(text, nil)
		if err != nil {
			return err
		}
		held, err := g.read(defaultGroup)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(stableFamilies(served), stableFamilies(held)); diff != "" {
			return fmt.Errorf("the Pushgateway does not hold what is served (-served +held):\n%s", diff)
		}
		return nil
	})
	if active := g.waitForGroup(defaultGroup)["llm_kv_blocks_active"].Series; len(active) != 3 {
		t.Errorf("llm_kv_blocks_active is %v, want three workers", active)
	}
}

// TestPushgatewayAcceptsAllNamesAndHistograms checks the text that is pushed.
func TestPushgatewayAcceptsAllNamesAndHistograms(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	f := fleet.New(fleet.Target{}, 10, true)
	f.Sync(fleet.Listing{})
	f.Stats.ActsAsLeader.Store(true)
	f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
	unusual := fleet.Endpoint{Component: "a \"b\"\\\n{c=\"d\"} 1", Name: "über\t生成"}
	f.Register("", fleet.Instance{Endpoint: unusual, ID: 1}, fleet.Registration{Publishes: true})
	for i, seconds := range []float64{0.001, 0.02, 7} {
		f.RecordForwardPass(fleet.Origin{Endpoint: unusual, Worker: 1}, fleet.Pass{Counter: uint64(i + 1), Seconds: seconds})
	}
	at, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop() // at once: the last push is the only one
	metrics := exposition.NewMetrics(exposition.Collector{Fleet: f, Now: time.Now})
	exposition.Push(ctx, exposition.Gateway{URL: at, Job: "unusual", Interval: time.Hour}, metrics, &f.Stats, slog.New(slog.DiscardHandler))
	if ok, failed := f.Stats.PushOK.Load(), f.Stats.PushError.Load(); ok != 1 || failed != 0 {
		t.Fatalf("%d pushes were taken, and %d refused", ok, failed)
	}
	want := map[string]string{fmt.Sprint(map[string]string{"component": unusual.Component, "endpoint": unusual.Name, "worker_id": "1"}): "3"}
	held := g.waitForGroup(map[string]string{"job": "unusual", "instance": ""})["llm_forward_pass_duration_seconds"].Series
	if diff := cmp.Diff(want, held); diff != "" {
		t.Errorf("llm_forward_pass_duration_seconds on the Pushgateway (-want +got):\n%s", diff)
	}
}

func TestPushgatewayDropsAWorkerWithTheNextPush(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	m, workers := pushing(t, g.url)
	gone, stays := workers[0], workers[1]
	testutil.Until(t, func() error {
		held, err := g.read(defaultGroup)
		if err == nil && !strings.Contains(fmt.Sprint(held), fmt.Sprint(gone.id)) {
			err = fmt.Errorf("worker %d is not on the Pushgateway", gone.id)
		}
		return err
	})

	gone.terminate()
	testutil.Until(t, func() error {
		p, err := m.scrape()
		if series := p.ofWorker(gone.id); err == nil && len(series) > 0 {
			err = fmt.Errorf("worker %d has left, but is served: %v", gone.id, series)
		}
		return err
	})
	// The first of these pushes may have been under way. The second one was made after the
	// worker left.
	m.waitForPushes("ok", 2)
	held := fmt.Sprint(g.waitForGroup(defaultGroup))
	if strings.Contains(held, fmt.Sprint(gone.id)) {
		t.Errorf("worker %d has left, but is on the Pushgateway: %s", gone.id, held)
	}
	if !strings.Contains(held, fmt.Sprint(stays.id)) {
		t.Errorf("worker %d has not left, but is not on the Pushgateway: %s", stays.id, held)
	}
}

func TestPushgatewayKeepsTheGroupAfterTheProgramEnds(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	m, _ := pushing(t, g.url)
	m.waitForPushes("ok", 1) // it leads then
	m.waitForPolls(2)
	m.Terminate() // pushes for the last time
	if active := g.waitForGroup(defaultGroup)["llm_kv_blocks_active"].Series; len(active) != 3 {
		t.Errorf("llm_kv_blocks_active is %v, want three workers", active)
	}
}

func TestPushgatewayGroupHasLabelsAndCanBeDeleted(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	m, _ := pushing(t, g.url, "--push-job", "fleet", "--push-grouping", "cluster=lab/1", "--push-grouping", "instance=one",
		"--push-delete-on-exit")
	group := map[string]string{"job": "fleet", "cluster": "lab/1", "instance": "one"}
	g.waitForGroup(group)
	if held, err := g.read(defaultGroup); err != nil || len(held) > 0 {
		t.Errorf("the default group is there too: %v, error %v", held, err)
	}
	m.Terminate()
	if held, err := g.read(group); err != nil || len(held) > 0 {
		t.Errorf("the program has ended, but its group is there: %v, error %v", held, err)
	}
}

func TestPushgatewayKilledIsWarnedAboutOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	m, _ := pushing(t, g.url)
	g.waitForGroup(defaultGroup)
	g.Kill()
	m.waitForPushes("error", 3)
	warnings := m.LinesWith("Failed to push")
	if len(warnings) != 1 || !strings.Contains(warnings[0], " WARN ") {
		t.Errorf("three pushes have failed, and the log has %q, want one warning", warnings)
	}
	g.start(t)
	g.waitForGroup(defaultGroup)
	m.WaitForLine("Pushing metrics to Pushgateway again")
	m.waitForPushes("ok", 2)
	if again := m.LinesWith("Pushing metrics to Pushgateway again"); len(again) != 1 {
		t.Errorf("the log has %q, want one line", again)
	}
	if warnings := m.LinesWith("Failed to push"); len(warnings) != 1 {
		t.Errorf("the log has %q, want one line", warnings)
	}
}

// protected is a configuration with the user dynamo and the password lets-push. The hash
// has the lowest cost, because it protects nothing else.
const protected = `basic_auth_users: {dynamo: $2a$04$0soiH/Pr8mTV.AOxGEc7reLXtTYLEn9l4ze5HvkGrxMYJ0KfBeeb.}`

func TestPushgatewayCredentialsFromItsURL(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(config, []byte(protected), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, "--web.config.file", config)
	address := strings.TrimPrefix(g.url, "http://")

	unknown, _ := pushing(t, "http://dynamo:wrong-word@"+address)
	unknown.waitForPushes("error", 2)
	warnings := unknown.LinesWith("Failed to push")
	if len(warnings) != 1 || !strings.Contains(warnings[0], "401") {
		t.Errorf("the log has %q, want one warning with the status 401", warnings)
	}
	known, _ := pushing(t, "http://dynamo:lets-push@"+address)
	known.waitForPushes("ok", 2)
	for _, m := range []*metrics{unknown, known} {
		for _, line := range m.Lines() {
			if strings.Contains(line, "wrong-word") || strings.Contains(line, "lets-push") {
				t.Errorf("a password is in the log: %s", line)
			}
		}
	}
	g.url = "http://dynamo:lets-push@" + address
	if active := g.waitForGroup(defaultGroup)["llm_kv_blocks_active"].Series; len(active) != 3 {
		t.Errorf("llm_kv_blocks_active is %v, want three workers", active)
	}
}
