package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// markedLine matches a line of the rules that contains a threshold's value.
var markedLine = regexp.MustCompile(`(?m)^( *[^ #].*) # ([a-z_]+)$`)

func TestThresholdsAreInTheRulesAndAcceptTheirDefaults(t *testing.T) {
	all := Thresholds()
	if len(all) < 20 {
		t.Fatalf("thresholds: %v, want all of the table", all)
	}
	var inRules []string
	for _, m := range markedLine.FindAllStringSubmatch(Rules(), -1) {
		name := m[2]
		th, known := threshold(name)
		if !known {
			t.Errorf("%s: no such threshold", m[0])
			continue
		}
		if found := th.linePattern().FindAllString(m[1], -1); len(found) != 1 {
			t.Errorf("%s: has the default %s %d times, want once", m[0], th.Default, len(found))
		}
		inRules = append(inRules, name)
	}
	slices.Sort(inRules)
	want := slices.Sorted(slices.Values(thresholdNames()))
	if diff := cmp.Diff(want, slices.Compact(inRules)); diff != "" {
		t.Errorf("thresholds (-table +rules):\n%s", diff)
	}
	for _, th := range all {
		if _, err := th.parse(th.Default); err != nil {
			t.Errorf("%s: its default: %v", th.Name, err)
		}
		if th.Meaning == "" || !strings.Contains(Runbook(), "`"+th.Name+"`") {
			t.Errorf("%s: want a meaning, and a mention in the runbook", th.Name)
		}
	}
}

func TestRulesWithNoSettingsAreTheFile(t *testing.T) {
	file, err := os.ReadFile("prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := RulesWith(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(file), got); diff != "" {
		t.Error(diff)
	}
}

// TestRulesWithAThresholdChangesItsLinesAlone lists the lines that change.
func TestRulesWithAThresholdChangesItsLinesAlone(t *testing.T) {
	for setting, want := range map[string][]string{
		"kv_full_usage=0.9": {"avg_over_time(worker:llm_kv_usage:ratio[5m]) >= 0.9 # kv_full_usage"},
		"worker_silent_for=90s": {
			"and max without (instance, pod) (max_over_time(llm_worker_up[1m30s])) == 0 # worker_silent_for",
			"and max without (instance, pod) (llm_worker_up offset 1m30s) == 0 # worker_silent_for",
		},
		"hit_rate_traffic=1e3": {"/ (endpoint:llm_kv_hit_rate_isl_blocks:rate15m >= 1000) # hit_rate_traffic"},
		"no_leader_for=1h":     {"for: 1h # no_leader_for"},
		"queue_growth=2":       nil, // the default
	} {
		rules, err := RulesWith([]string{setting})
		if err != nil {
			t.Errorf("%s: %v", setting, err)
			continue
		}
		before, after := strings.Split(Rules(), "\n"), strings.Split(rules, "\n")
		if len(before) != len(after) {
			t.Fatalf("%s: %d lines, want %d", setting, len(after), len(before))
		}
		var changed []string
		for i := range after {
			if before[i] != after[i] {
				changed = append(changed, strings.TrimSpace(after[i]))
			}
		}
		if diff := cmp.Diff(want, changed); diff != "" {
			t.Errorf("%s (-want +got):\n%s", setting, diff)
		}
	}
}

func TestRulesWithNamesWrongSettingsInOneLine(t *testing.T) {
	for setting, want := range map[string]string{
		"":                     `--set "": want name=value`,
		"kv_full_usage":        `--set "kv_full_usage": want name=value`,
		"kv_full_usage=":       `--set "kv_full_usage=": want a number from 0.5 to 1`,
		"kv_full_usage=1.1":    `--set "kv_full_usage=1.1": want a number from 0.5 to 1`,
		"kv_full_usage=NaN":    `--set "kv_full_usage=NaN": want a number from 0.5 to 1`,
		"kv_full_usage=90%":    `--set "kv_full_usage=90%": want a number from 0.5 to 1`,
		"kv_full_for=59s":      `--set "kv_full_for=59s": want a duration from 1m to 1h`,
		"kv_full_for=5":        `--set "kv_full_for=5": want a duration from 1m to 1h`,
		"kv_full_for=1.5m":     `--set "kv_full_for=1.5m": want a duration from 1m to 1h`,
		"kv_full_for=5m # x\n": `--set "kv_full_for=5m # x\n": want a duration from 1m to 1h`,
		"kv_ful_usage=0.9":     `--set "kv_ful_usage=0.9": no such threshold: did you mean kv_full_usage?`,
	} {
		if _, err := RulesWith([]string{setting}); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	for _, settings := range [][]string{{"kv_full=1"}, {"kv_full_for=5m", "kv_full_for=6m"}} {
		_, err := RulesWith(settings)
		if err == nil || !strings.HasPrefix(err.Error(), `--set "`+settings[len(settings)-1]+`": `) {
			t.Errorf("%q: got %v", settings, err)
		}
	}
}

// alerts returns the rules of the alerts, by name.
func alerts() map[string]string {
	all := make(map[string]string)
	for _, part := range strings.Split(Rules(), "- alert: ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		all[name] = rest
	}
	return all
}

func TestRunbookHasOneSectionForEachAlert(t *testing.T) {
	var names []string
	for name, rule := range alerts() {
		names = append(names, name)
		for _, part := range []string{"runbook: metrics runbook " + name + "\n", "severity: ", "summary: ", "description: "} {
			if !strings.Contains(rule, part) {
				t.Errorf("%s: no %q", name, part)
			}
		}
		section, err := Section(strings.ToLower(name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range []string{"**What.**", "**Why it matters.**", "**Check.**", "**Fix.**", "Thresholds: "} {
			if !strings.Contains(section, part) {
				t.Errorf("%s: the section has no %q", name, part)
			}
		}
		if !strings.HasPrefix(section, "## "+name+"\n") || strings.Count(section, "\n## ") > 0 {
			t.Errorf("%s: not one section:\n%s", name, section)
		}
		for _, m := range markedLine.FindAllStringSubmatch(rule, -1) {
			if !strings.Contains(section, "`"+m[2]+"`") {
				t.Errorf("%s: the section does not name %s", name, m[2])
			}
		}
	}
	want := Alerts()
	slices.Sort(want)
	slices.Sort(names)
	if diff := cmp.Diff(want, names); diff != "" || len(names) != 12 {
		t.Errorf("alerts (-runbook +rules):\n%s", diff)
	}
}

func TestSectionListsKnownAlertsForAnUnknownOne(t *testing.T) {
	_, err := Section("DynamoNothing")
	if err == nil || !strings.HasPrefix(err.Error(), `"DynamoNothing": no such alert: want one of DynamoWorkerSilent, `) {
		t.Errorf("got %v", err)
	}
	for _, alert := range []string{"DynamoWorkersSilent", "dynamo-worker-slient"} {
		_, err := Section(alert)
		if want := fmt.Sprintf("%q: no such alert: did you mean DynamoWorkerSilent?", alert); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// expectation matches an expectation in the unit tests of an alert, with or without alerts.
var expectation = regexp.MustCompile(`(?m)alertname: (Dynamo[A-Za-z]+)(\}|, exp_alerts|$\n *exp_alerts)`)

func TestAlertsAreTestedToFireAndNotToFire(t *testing.T) {
	paths, err := filepath.Glob("prometheus/tests/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	fires, quiet := make(map[string]int), make(map[string]int)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := expectation.FindAllStringSubmatch(string(text), -1)
		if all := strings.Count(string(text), "alertname:"); len(found) != all {
			t.Errorf("%s: parsed %d expectations of %d", path, len(found), all)
		}
		for _, m := range found {
			if m[2] == "}" {
				quiet[m[1]]++
			} else {
				fires[m[1]]++
			}
		}
	}
	for name := range alerts() {
		if fires[name] == 0 || quiet[name] < 2 {
			t.Errorf("%s: fires in %d tests, and does not in %d", name, fires[name], quiet[name])
		}
	}
}
