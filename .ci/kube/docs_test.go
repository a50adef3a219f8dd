package kube

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// deploying returns that section of the README.
func deploying(t *testing.T) string {
	t.Helper()
	_, section, found := strings.Cut(read(t, root+"/README.md"), "\n## Deploying in Kubernetes\n")
	if !found {
		t.Fatal("the README has no section Deploying in Kubernetes")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

func TestReadmeNamesValuesAndFilesThatExist(t *testing.T) {
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

// variable matches the environment variables in the README.
var variable = regexp.MustCompile(`\b(?:NATS|DYN)_[A-Z_]+\b`)

func TestPodVariablesAreReadByTheProgram(t *testing.T) {
	known := variable.FindAllString(read(t, root+"/README.md"), -1)
	each(t, func(t *testing.T, _ release, o objects) {
		for name := range o.env() {
			if variable.MatchString(name) && !slices.Contains(known, name) {
				t.Errorf("the README, which names every variable that the program reads, does not name %s", name)
			}
		}
	})
}
