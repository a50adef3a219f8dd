package kube

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// inKubernetes is that section of the README.
func inKubernetes(t *testing.T) string {
	t.Helper()
	_, section, found := strings.Cut(read(t, root+"/README.md"), "\n## In Kubernetes\n")
	if !found {
		t.Fatal("the README has no section In Kubernetes")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

func TestReadmeShowsTheRights(t *testing.T) {
	_, block, _ := strings.Cut(inKubernetes(t), "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	var shown rbac.Role
	if err := yaml.UnmarshalStrict([]byte(block), &shown); err != nil {
		t.Fatal(err)
	}
	o, err := decode(elsewhere.render(t)) // in container mode
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o.role.Rules, shown.Rules); diff != "" {
		t.Errorf("rules (-chart +README):\n%s", diff)
	}
}

func TestReadmeNamesValuesAndFilesThatExist(t *testing.T) {
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, chart+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, row := range regexp.MustCompile(`(?m)^\|.*\| (`+"`[^|]*`"+`) \|$`).FindAllStringSubmatch(inKubernetes(t), -1) {
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
	for _, path := range regexp.MustCompile(`\bdeploy/[a-zA-Z/.-]*[a-zA-Z]`).FindAllString(inKubernetes(t), -1) {
		if _, err := os.Stat(root + "/" + path); err != nil {
			t.Error(err)
		}
	}
}

// variable matches the environment variables that the README tells.
var variable = regexp.MustCompile(`\b(?:NATS|DYN)_[A-Z_]+\b`)

func TestTheProgramReadsEveryVariableOfThePods(t *testing.T) {
	known := append(variable.FindAllString(read(t, root+"/README.md"), -1), "DYN_KUBE_DISCOVERY_MODE") // it is coming
	each(t, func(t *testing.T, _ release, o objects) {
		for name := range o.env() {
			if variable.MatchString(name) && !slices.Contains(known, name) {
				t.Errorf("the README, which has all that the program reads, does not name %s", name)
			}
		}
	})
}
