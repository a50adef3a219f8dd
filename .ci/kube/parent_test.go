package kube

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// parent is a chart that depends on ours.
type parent struct {
	dependency string // more lines of the dependency in Chart.yaml
	values     string // of the parent
	set        string // for --set, which overrides them
}

// template returns the output of helm template for the parent, and its errors.
func (p parent) template(t *testing.T) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"Chart.yaml":  "apiVersion: v2\nname: platform\nversion: 0.1.0\ndependencies:\n  - name: dynamo-metrics\n    version: '>=0.0.0'\n" + p.dependency,
		"values.yaml": p.values,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(helm, "package", chart, "--destination", filepath.Join(dir, "charts")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args := []string{"template", dir, "--namespace", "dynamo"}
	if p.set != "" {
		args = append(args, "--set", p.set)
	}
	out, err := exec.Command(helm, args...).CombinedOutput()
	return string(out), err
}

func TestParentMayDependInEveryWay(t *testing.T) {
	const condition = "    condition: dynamo-metrics.enabled\n"
	for name, c := range map[string]struct {
		parent
		want bool // whether our chart is rendered
	}{
		"always":                      {parent{}, true},
		"on":                          {parent{condition, "dynamo-metrics: {enabled: true}", ""}, true},
		"off":                         {parent{condition, "dynamo-metrics: {enabled: false}", ""}, false},
		"not set":                     {parent{condition, "dynamo-metrics: {replicas: 1}", ""}, true},
		"switched on":                 {parent{condition, "dynamo-metrics: {enabled: false}", "dynamo-metrics.enabled=true"}, true},
		"switched off":                {parent{condition, "dynamo-metrics: {enabled: true}", "dynamo-metrics.enabled=false"}, false},
		"of an alias, on":             {parent{"    alias: load\n    condition: load.enabled\n", "load: {enabled: true, replicas: 1}", ""}, true},
		"of an alias, off":            {parent{"    alias: load\n    condition: load.enabled\n", "load: {enabled: false}", ""}, false},
		"of several paths":            {parent{"    condition: platform.metrics,dynamo-metrics.enabled\n", "dynamo-metrics: {enabled: true}", ""}, true},
		"elsewhere, on":               {parent{"    condition: platform.metrics\n", "platform: {metrics: true}", ""}, true},
		"elsewhere, off":              {parent{"    condition: platform.metrics\n", "platform: {metrics: false}", ""}, false},
		"by a tag, on":                {parent{"    tags: [watching]\n", "tags: {watching: true}", ""}, true},
		"by a tag, off":               {parent{"    tags: [watching]\n", "tags: {watching: false}", ""}, false},
		"tag off, condition on":       {parent{condition + "    tags: [watching]\n", "tags: {watching: false}\ndynamo-metrics: {enabled: true}", ""}, true},
		"with global values":          {parent{condition, "global: {imageRegistry: a, enabled: 1}\ndynamo-metrics: {enabled: true, global: {b: c}}", ""}, true},
		"with values that it imports": {parent{condition + "    import-values:\n      - {child: image, parent: metricsImage}\n", "dynamo-metrics: {enabled: true}", ""}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := c.template(t)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if strings.Contains(strings.ToLower(out), "warn") {
				t.Errorf("helm warns: %s", out)
			}
			if got := strings.Contains(out, "app.kubernetes.io/part-of: dynamo"); got != c.want {
				t.Errorf("our chart is rendered: %v, want %v:\n%.500s", got, c.want, out)
			}
		})
	}
}

// A dependency, too, refuses values that are neither its own nor Helm's.
func TestParentNamesWrongValues(t *testing.T) {
	for values, want := range map[string]string{
		"dynamo-metrics: {enabled: true, enable: true}":               "additional properties 'enable' not allowed",
		"dynamo-metrics: {enabled: true, tags: {a: b}}":               "additional properties 'tags' not allowed",
		"dynamo-metrics: {enabled: 'on'}":                             "at '/enabled': got string, want boolean",
		"dynamo-metrics: {enabled: false}\nplatform: {metrics: true}": "enabled: the condition of a parent chart switches this chart off, and there is none that does",
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			out, err := parent{"    condition: platform.metrics\n", values, ""}.template(t)
			if err == nil || !strings.Contains(out, want) {
				t.Errorf("%v: want an error with %q, got\n%.500s", err, want, out)
			}
		})
	}
}
