//go:build real

package real

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	"github.com/google/go-cmp/cmp"
)

// acceptedWarnings are promtool's warnings about names of the original's metrics, which its
// users' dashboards query.
var acceptedWarnings = []string{
	`llm_kv_blocks_total non-counter metrics should not have "_total" suffix`,
	`llm_kv_hit_rate_isl_blocks counter metrics should have "_total" suffix`,
	`llm_kv_hit_rate_overlap_blocks counter metrics should have "_total" suffix`,
}

func TestPromtoolAcceptsTheMetrics(t *testing.T) {
	t.Parallel()
	promtool := process.Installed(t, "promtool", "prometheus")
	s := startServers(t)
	s.replayOriginals()
	captured := filepath.Join("testdata", "0.5.1") // with speculative decoding
	s.replay(filepath.Join(captured, "stats_reply_1.json"), filepath.Join(captured, "etcd_keys.json"))
	m := s.metrics(watchFlags()...)
	m.waitForPolls(2)
	s.publishOriginalHits()
	testutil.Until(t, func() error {
		p, err := m.scrape()
		if err == nil && p[`llm_kv_hit_rate_events_total{component="backend",endpoint="load_metrics"}`] != "5" {
			err = errors.New("/metrics lacks the events")
		}
		return err
	})
	whole, err := get(m.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(whole, "llm_spec_decode_drafts") {
		t.Error("/metrics lacks speculative decoding")
	}

	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(whole)
	out, err := check.CombinedOutput()
	var exit *exec.ExitError
	const complains = 3
	if !errors.As(err, &exit) || exit.ExitCode() != complains {
		t.Errorf("promtool check metrics: %v, want exit status %d", err, complains)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(got)
	if diff := cmp.Diff(acceptedWarnings, got); diff != "" {
		t.Errorf("promtool check metrics (-want +got):\n%s", diff)
	}
}

// TestPromtoolAcceptsDocumentedConfigurations checks the configurations in README and docs, as
// Prometheus parses them.
func TestPromtoolAcceptsDocumentedConfigurations(t *testing.T) {
	t.Parallel()
	promtool := process.Installed(t, "promtool", "prometheus")
	blocks := slices.DeleteFunc(documented(t, "yaml"), func(block string) bool {
		return strings.HasPrefix(block, "triggers:") // a configuration of KEDA
	})
	if len(blocks) < 3 {
		t.Fatalf("%d configurations in README and docs, want 3 or more", len(blocks))
	}
	for _, block := range blocks {
		config, _, _ := strings.Cut(block, "```")
		file := filepath.Join(t.TempDir(), "prometheus.yml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(promtool, "check", "config", file).CombinedOutput(); err != nil {
			t.Errorf("promtool check config: %v: %s\nof\n%s", err, out, config)
		}
	}
}

// TestPromtoolAcceptsDocumentedQueries asks promtool for every PromQL query in docs.
func TestPromtoolAcceptsDocumentedQueries(t *testing.T) {
	t.Parallel()
	promtool := process.Installed(t, "promtool", "prometheus")
	queries := documented(t, "promql")
	if len(queries) < 10 {
		t.Fatalf("%d queries in docs, want 10 or more", len(queries))
	}
	for _, query := range queries {
		query, _, _ = strings.Cut(query, "```")
		rules := "groups:\n- name: docs\n  rules:\n  - record: a:b:c\n    expr: |\n      " + strings.ReplaceAll(query, "\n", "\n      ") + "\n"
		file := filepath.Join(t.TempDir(), "rules.yml")
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil {
			t.Errorf("promtool check rules: %v: %s\nof\n%s", err, out, query)
		}
	}
}

// documented returns the blocks of code of a language in README and docs, each with the text that
// follows it.
func documented(t *testing.T, language string) []string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, path := range append(paths, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, strings.Split(string(text), "```"+language+"\n")[1:]...)
	}
	return blocks
}
