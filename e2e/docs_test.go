package e2e

import (
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/deploy"
	"dynamo-metrics/internal/exposition"

	"github.com/google/go-cmp/cmp"
)

// flagName matches the name of a flag in a text.
const flagName = `--[a-z][a-z.-]*`

func TestDocsNameEveryMetricAndNoOther(t *testing.T) {
	t.Parallel()
	text := strings.ReplaceAll(docs(t), "_bucket", "") // queries ask for the buckets of a histogram
	got := find(text, `\b(?:llm|dynamo_metrics)_[a-z_]+\b`)
	if diff := cmp.Diff(exposition.Names(), got); diff != "" {
		t.Errorf("metrics (-table +docs):\n%s", diff)
	}
}

// flagsOfOtherPrograms are flags of docker and etcdctl that the docs name.
var flagsOfOtherPrograms = []string{"--keys-only", "--platform", "--prefix"}

func TestDocsNameEveryFlagAndNoOther(t *testing.T) {
	t.Parallel()
	var all []string
	for program, section := range map[string][2]string{
		"metrics":            {"## Flags of metrics", "## Flags of mock_worker"},
		"mock_worker":        {"## Flags of mock_worker", "## Flags of devstack"},
		"devstack":           {"## Flags of devstack", "## Environment variables"},
		"metrics dashboards": {"| `metrics dashboards", "\n"},
		"metrics rules":      {"| `metrics rules", "\n"},
	} {
		command := append(strings.Fields(program), "--help")
		help, err := exec.Command(filepath.Join(bin, command[0]), command[1:]...).Output()
		if err != nil {
			t.Fatalf("%s --help: %v", program, err)
		}
		flags := find(strings.ReplaceAll(string(help), "--[no-]", "--"), flagName)
		all = append(all, flags...)
		common := []string{"--help-long", "--help-man"}
		if program != "metrics" {
			common = append(common, "--help", "--version")
		}
		want := slices.DeleteFunc(flags, func(f string) bool { return slices.Contains(common, f) })
		_, table, _ := strings.Cut(docs(t), section[0])
		table, _, _ = strings.Cut(table, section[1])
		if diff := cmp.Diff(want, find(table, flagName)); diff != "" {
			t.Errorf("flags of %s (-program +docs):\n%s", program, diff)
		}
	}
	for _, f := range find(docs(t), flagName) {
		if !slices.Contains(all, f) && !slices.Contains(flagsOfOtherPrograms, f) {
			t.Errorf("no program has the flag %s", f)
		}
	}
}

// ofOtherPrograms are variables of Dynamo's workers and frontends that the docs ask operators to
// set there.
var ofOtherPrograms = []string{"DYN_EVENT_PLANE", "DYN_FORWARDPASS_METRIC_PORT", "DYN_REQUEST_TRACE", "DYN_REQUEST_TRACE_SINKS", "DYN_SYSTEM_PORT"}

func TestDocsNameEveryVariableAndNoOther(t *testing.T) {
	t.Parallel()
	const variable = `\b(?:NATS|ETCD|DYN)_[A-Z_]+\b`
	var source strings.Builder
	err := filepath.WalkDir("../internal", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			source.Write(readFile(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Only in quotes, because comments may mention other programs' variables.
	read := find(strings.Join(find(source.String(), `"`+variable+`"`), " "), variable)
	named := find(docs(t), variable)
	for _, other := range ofOtherPrograms {
		if !slices.Contains(named, other) || slices.Contains(read, other) {
			t.Errorf("%s: want it in the docs and in no program", other)
		}
		named = slices.DeleteFunc(named, func(name string) bool { return name == other })
	}
	if diff := cmp.Diff(read, named); diff != "" {
		t.Errorf("variables (-program +docs):\n%s", diff)
	}
}

func TestDocsCommandsExist(t *testing.T) {
	t.Parallel()
	for _, dir := range find(docs(t), `\./cmd/[a-z_]+`) {
		if _, err := os.Stat(filepath.Join("..", dir)); err != nil {
			t.Error(err)
		}
	}
	for _, program := range find(docs(t), `(?m)^(?:DYN_LOG=info )?\./[a-z_]+`) {
		name := program[strings.LastIndexByte(program, '/')+1:]
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestDocsNameEveryAlertAndNoOther(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(string(readFile(t, "../docs/alerts.md")), "| alert |")
	section, _, _ = strings.Cut(section, "\n\n")
	got := find(section, `Dynamo[A-Z]\w+`)
	want := slices.Sorted(slices.Values(deploy.Alerts()))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alerts (-runbook +docs):\n%s", diff)
	}
	for _, setting := range find(docs(t), `--set [a-z]\w+=\S+`) {
		if _, err := deploy.RulesWith([]string{strings.TrimPrefix(setting, "--set ")}); err != nil {
			t.Error(err)
		}
	}
}

func TestDocsPathsAnswer(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--debug.pprof")
	m.waitUntilReady()
	for _, path := range find(docs(t), "`/[a-z0-9/.-]*`") {
		resp, err := http.Get(m.url + strings.Trim(path, "`"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close() // without reading the body: some responses do not end
		if resp.StatusCode != 200 {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
}

// docs returns the text of README.md and of all files in docs.
func docs(t *testing.T) string {
	t.Helper()
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("docs has no files (%v)", err)
	}
	var text strings.Builder
	for _, path := range append([]string{"../README.md"}, paths...) {
		text.Write(readFile(t, path))
		text.WriteString("\n\n")
	}
	return text.String()
}

// find returns the distinct matches in a text, sorted.
func find(text, expression string) []string {
	found := regexp.MustCompile(expression).FindAllString(text, -1)
	slices.Sort(found)
	return slices.Compact(found)
}
