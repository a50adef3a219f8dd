//go:build real

package real

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dynamo-metrics/deploy"
	"dynamo-metrics/e2e/process"
)

// alertTests returns the unit tests of each alert.
func alertTests(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../deploy/prometheus/tests/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]string)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, alert := range deploy.Alerts() {
			if strings.Contains(string(text), "alertname: "+alert+"\n") {
				tests[alert] += string(text)
			}
		}
	}
	if len(tests) != len(paths) || len(tests) != len(deploy.Alerts()) {
		t.Fatalf("%d alerts with unit tests in %d files, want one file for each of %v", len(tests), len(paths), deploy.Alerts())
	}
	return tests
}

// unitTest runs an alert's unit tests with these rules.
func unitTest(t *testing.T, rules, tests string) (report string, err error) {
	t.Helper()
	promtool := process.Installed(t, "promtool", "prometheus")
	dir := t.TempDir()
	ruleFile, testFile := filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "tests", "test.yaml")
	if err := os.Mkdir(filepath.Dir(testFile), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{ruleFile: rules, testFile: tests} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(promtool, "check", "rules", ruleFile).CombinedOutput(); err != nil {
		t.Fatalf("promtool check rules: %v: %s", err, out)
	}
	out, err := exec.Command(promtool, "test", "rules", testFile).CombinedOutput()
	return string(out), err
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	for alert, tests := range alertTests(t) {
		t.Run(alert, func(t *testing.T) {
			if report, err := unitTest(t, deploy.Rules(), tests); err != nil {
				t.Errorf("promtool test rules: %v\n%s", err, report)
			}
		})
	}
}

// TestAlertsDependOnEveryThreshold sets each threshold to both ends of its range. At one of
// them the unit tests must fail, so that they would notice a threshold without effect.
func TestAlertsDependOnEveryThreshold(t *testing.T) {
	t.Parallel()
	tests := alertTests(t)
	decides := func(t *testing.T, threshold deploy.Threshold, alert string) bool {
		for _, value := range []string{threshold.Least, threshold.Most} {
			rules, err := deploy.RulesWith([]string{threshold.Name + "=" + value})
			if err != nil {
				t.Fatal(err)
			}
			report, err := unitTest(t, rules, tests[alert])
			if err != nil && strings.Contains(report, "FAILED") {
				return true
			}
		}
		return false
	}
	for _, threshold := range deploy.Thresholds() {
		t.Run(threshold.Name, func(t *testing.T) {
			for _, alert := range deploy.Alerts() {
				section, err := deploy.Section(alert)
				if err != nil {
					t.Fatal(err)
				}
				_, named, _ := strings.Cut(section, "\nThresholds: ")
				if strings.Contains(named, "`"+threshold.Name+"`") && decides(t, threshold, alert) {
					return
				}
			}
			t.Error("the unit tests pass with both ends")
		})
	}
}
