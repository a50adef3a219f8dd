package kube

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestDocsNameValuesAndFilesThatExist(t *testing.T) {
	doc := read(t, root+"/docs/kubernetes.md")
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, chart+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, row := range regexp.MustCompile(`(?m)^\|.*\| (`+"`[^|]*`"+`) \|$`).FindAllStringSubmatch(doc, -1) {
		named = append(named, strings.Split(row[1], ", ")...)
	}
	if len(named) < 10 {
		t.Errorf("found only %q", named)
	}
	for _, name := range named {
		if _, there := values[strings.Trim(name, "`")]; !there {
			t.Errorf("the chart has no value %s", name)
		}
	}
	for _, path := range regexp.MustCompile(`\bdeploy/[a-zA-Z/.-]*[a-zA-Z]`).FindAllString(doc, -1) {
		if _, err := os.Stat(root + "/" + path); err != nil {
			t.Error(err)
		}
	}
}

// variable matches the environment variables that docs/configuration.md names.
var variable = regexp.MustCompile(`\b(?:NATS|DYN)_[A-Z_]+\b`)

func TestPodVariablesAreDocumented(t *testing.T) {
	known := variable.FindAllString(read(t, root+"/docs/configuration.md"), -1)
	each(t, func(t *testing.T, _ release, o objects) {
		for name := range o.env() {
			if variable.MatchString(name) && !slices.Contains(known, name) {
				t.Errorf("docs/configuration.md, which has every variable that the program reads, does not name %s", name)
			}
		}
	})
}
