package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dynamo-metrics/deploy"
)

// output returns what the program prints to standard output.
func output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "metrics"), args...).Output()
	if err != nil {
		t.Fatalf("metrics %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

func TestPrintFilesOfDeploy(t *testing.T) {
	t.Parallel()
	for path, command := range map[string]string{
		"grafana/dynamo-fleet.json":  "dashboards fleet",
		"grafana/dynamo-worker.json": "dashboards worker",
		"prometheus/rules.yaml":      "rules",
		"prometheus/runbook.md":      "runbook",
	} {
		want := string(readFile(t, filepath.Join("..", "deploy", path)))
		if got := output(t, strings.Fields(command)...); got != want {
			t.Errorf("metrics %s is not %s", command, path)
		}
	}
}

func TestPrintDashboards(t *testing.T) {
	t.Parallel()
	list, help := output(t, "dashboards"), output(t, "--help")
	dir := filepath.Join(t.TempDir(), "a", "b")
	written := output(t, "dashboards", "-o", dir)
	for _, d := range deploy.Dashboards() {
		path := filepath.Join(dir, d.File)
		text, err := os.ReadFile(path)
		if err != nil || string(text) != d.Text {
			t.Errorf("%s: not as in the binary, %v", path, err)
		}
		if !strings.Contains(written, path+"\n") || !strings.Contains(list, d.Name+" ") {
			t.Errorf("%s: want its name and its file in both:\n%s\n%s", d.Name, list, written)
		}
	}
	one := filepath.Join(dir, "one")
	output(t, "dashboards", "worker", "--output", one)
	if files, err := os.ReadDir(one); err != nil || len(files) != 1 || files[0].Name() != "dynamo-worker.json" {
		t.Errorf("got %v, %v; want only the file dynamo-worker.json", files, err)
	}
	for _, name := range []string{"metrics dashboards:", "metrics rules:", "metrics runbook:"} {
		if !strings.Contains(help, name) {
			t.Errorf("--help does not mention %s", name)
		}
	}
}

func TestPrintRulesWithThresholds(t *testing.T) {
	t.Parallel()
	rules := output(t, "rules", "--set", "kv_full_usage=0.9", "--set=no_leader_for=5m")
	for _, line := range []string{" >= 0.9 # kv_full_usage\n", " for: 5m # no_leader_for\n", " for: 2m # not_connected_for\n"} {
		if !strings.Contains(rules, line) {
			t.Errorf("no line ends in %q", line)
		}
	}
}

func TestPrintOneSectionOfTheRunbook(t *testing.T) {
	t.Parallel()
	section := output(t, "runbook", "DynamoWorkerSilent")
	if !strings.HasPrefix(section, "## DynamoWorkerSilent\n") || strings.Count(section, "## ") != 1 || !strings.Contains(output(t, "runbook"), section) {
		t.Errorf("got\n%s", section)
	}
}

func TestPrintFailsInOneLine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"dashboards x", `"x": no such dashboard: want one of fleet, worker`, 2},
		{"dashboards fleet worker", `unexpected worker`, 2},
		{"dashboards --output " + file, "write dashboards (--output): mkdir " + file + ": not a directory", 1},
		{"rules --set x=1", `--set "x=1": no such threshold: want one of worker_silent_for, `, 2},
		{"rules --set kv_ful_usage=1", `--set "kv_ful_usage=1": no such threshold: did you mean kv_full_usage?`, 2},
		{"dashboards fleets", `"fleets": no such dashboard: did you mean fleet?`, 2},
		{"runbook DynamoWorkersSilent", `"DynamoWorkersSilent": no such alert: did you mean DynamoWorkerSilent?`, 2},
		{"rules --ste x=1", `unknown long flag '--ste': did you mean --set?`, 2},
		{"rules --set kv_full_usage=2", `--set "kv_full_usage=2": want a number from 0.5 to 1`, 2},
		{"rules x", `unexpected x`, 2},
		{"runbook x", `"x": no such alert: want one of DynamoWorkerSilent, `, 2},
		{"runbook --namespace x", `unknown long flag '--namespace'`, 2},
		{"--namespace x dashboards", `unexpected dashboards: want it as the first argument`, 2},
	} {
		p := start(t, "metrics", nil, strings.Fields(c.args)...)
		if code := p.Wait(); code != c.code || !strings.Contains(p.LastLine(), c.want) || len(p.Lines()) != 1 {
			t.Errorf("%s: exit code %d and\n%q\nwant %d and one line with\n%s", c.args, code, p.Lines(), c.code, c.want)
		}
	}
}
