package kube

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// release is one way to install the chart, with the expected output.
type release struct {
	name      string
	namespace string
	values    string // a file; empty: the chart's own values
	rendered  string // the file with the expected output of helm template
}

var (
	plain      = release{name: "dynamo-metrics", namespace: "dynamo", rendered: manifests}
	everything = release{name: "dynamo-metrics", namespace: "dynamo", values: "testdata/everything.values.yaml", rendered: "testdata/everything.yaml"}
	elsewhere  = release{name: "lab", namespace: "monitoring", values: "testdata/elsewhere.values.yaml", rendered: "testdata/elsewhere.yaml"}
	least      = release{name: "dynamo-metrics", namespace: "dynamo", values: "testdata/least.values.yaml", rendered: "testdata/least.yaml"}
	releases   = []release{plain, everything, elsewhere, least}
)

// render returns the output of helm template for the release.
func (r release) render(t *testing.T) string {
	t.Helper()
	args := []string{"template", r.name, chart, "--namespace", r.namespace}
	if r.values != "" {
		args = append(args, "--values", r.values)
	}
	out, err := exec.Command(helm, args...).Output()
	if err != nil {
		t.Fatal(explain(err))
	}
	return string(out)
}

func (r release) lint() ([]byte, error) {
	args := []string{"lint", "--strict", chart, "--namespace", r.namespace}
	if r.values != "" {
		args = append(args, "--values", r.values)
	}
	return exec.Command(helm, args...).CombinedOutput()
}

func TestChartRendersAsCommitted(t *testing.T) {
	for _, r := range releases {
		t.Run(r.rendered, func(t *testing.T) {
			t.Parallel()
			got := r.render(t)
			if *update {
				if err := os.WriteFile(r.rendered, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(read(t, r.rendered), got); diff != "" {
				t.Errorf("-committed +helm template (go -C .ci/kube test . -update writes it):\n%s", diff)
			}
		})
	}
}

func TestChartPassesHelmLint(t *testing.T) {
	for _, r := range releases {
		t.Run(r.rendered, func(t *testing.T) {
			t.Parallel()
			if out, err := r.lint(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestChartNamesWrongValues(t *testing.T) {
	for set, want := range map[string]string{
		"resorces.limits=1":        "additional properties 'resorces' not allowed",
		"image.tags=1":             "at '/image': additional properties 'tags' not allowed",
		"nats.servers=a":           "at '/nats': additional properties 'servers' not allowed",
		"push.URL=a":               "at '/push': additional properties 'URL' not allowed",
		"web.secret=a":             "at '/web': additional properties 'secret' not allowed",
		"serviceMonitor.enable=on": "at '/serviceMonitor': additional properties 'enable' not allowed",
		"networkPolicy.form=a":     "at '/networkPolicy': additional properties 'form' not allowed",
		"replicas=two":             "at '/replicas': got string, want integer",
		"discoveryMode=pods":       "at '/discoveryMode'",
		"scrapeWorkers=yes":        "at '/scrapeWorkers'",
		"dynamoNamespace=a*b":      "at '/dynamoNamespace'",
		"dynamoNamespace=":         "at '/dynamoNamespace'",
		"image.digest=sha256:1":    "at '/image/digest'",
		"extraArgs[0]=-v":          "at '/extraArgs/0'",
		"nats.secret=a":            "nats.secret: needs nats.server",
		"enabled=false":            "enabled: the condition of a parent chart",
		"enabled=maybe":            "at '/enabled': got string, want boolean",
	} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(helm, "template", chart, "--set", set).CombinedOutput()
			if err == nil || !strings.Contains(string(out), want) {
				t.Errorf("%v: want an error with %q, got\n%.500s", err, want, out)
			}
		})
	}
}

// In a values file, YAML parses on and off as true and false.
func TestChartAcceptsUnquotedOnAndOff(t *testing.T) {
	for _, value := range []string{"on", "off"} {
		cmd := exec.Command(helm, "template", chart, "--values", "-")
		cmd.Stdin = strings.NewReader("scrapeWorkers: " + value)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(explain(err))
		}
		if want := `"--scrape-workers=` + value + `"`; !strings.Contains(string(out), want) {
			t.Errorf("scrapeWorkers: %s: want %s in\n%s", value, want, out)
		}
	}
}

// If only one of the two files has a value, the value is either not documented or refused.
func TestChartSchemaHasExactlyTheValues(t *testing.T) {
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(read(t, chart+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	type schema struct{ Properties map[string]schema }
	var s schema
	if err := json.Unmarshal([]byte(read(t, chart+"/values.schema.json")), &s); err != nil {
		t.Fatal(err)
	}
	delete(s.Properties, "global") // Helm adds these itself, and for a parent's condition
	delete(s.Properties, "enabled")
	compare := func(of string, values map[string]any, properties map[string]schema) {
		got, want := slices.Sorted(maps.Keys(properties)), slices.Sorted(maps.Keys(values))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-values.yaml +values.schema.json):\n%s", of, diff)
		}
	}
	compare("values", values, s.Properties)
	for name, property := range s.Properties {
		if property.Properties != nil {
			inner, _ := values[name].(map[string]any)
			compare(name, inner, property.Properties)
		}
	}
}

// appVersion returns the program's version in Chart.yaml.
func appVersion(t *testing.T) string {
	t.Helper()
	var c struct {
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal([]byte(read(t, chart+"/Chart.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	return c.AppVersion
}

func TestChartHasTheProgramsVersion(t *testing.T) {
	out, err := exec.Command(metrics, "--version").Output()
	if err != nil {
		t.Fatal(explain(err))
	}
	if got, want := appVersion(t), strings.TrimSpace(strings.TrimPrefix(string(out), "metrics ")); got != want {
		t.Errorf("appVersion in Chart.yaml is %s, the program's version %s", got, want)
	}
	if want := "--tag dynamo-metrics:" + appVersion(t) + " "; !strings.Contains(read(t, dockerfile), want) {
		t.Errorf("%s: want %q in it", dockerfile, want)
	}
}
