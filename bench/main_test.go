package main

import (
	"io"
	"strings"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.SetParallel(6)
	m.Run()
}

func TestParseNamesWrongFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                               "",
		"--quick --only hits,page":       "",
		"--only hits,pages":              `--only "hits,pages": want`,
		"load hits --rate full":          "",
		"load hits --rate 0":             `--rate "0": want`,
		"load workers --workers 0":       `--workers "0": want`,
		"load workers --duration 1":      "unknown long flag '--duration'",
		"soak --duration 9":              `--duration "9": want`,
		"fuzz --seed -1":                 `--seed "-1": want`,
		"load hits --etcd-endpoints x:1": "unknown long flag '--etcd-endpoints'",
	} {
		_, _, err := parse(strings.Fields(args), noEnv, io.Discard, io.Discard)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got error %q, want %q", args, got, want)
		}
	}
}

func TestTableListsMissedTargets(t *testing.T) {
	var tab table
	tab.add(row{measure: "fast", ours: "1 ms", target: "≤ 2 ms", met: true})
	tab.add(row{measure: "slow", ours: "3 ms", target: "≤ 2 ms"})
	if err := tab.verdict(); err != nil {
		t.Errorf("a missed absolute figure fails the run: %v", err)
	}
	tab.add(row{measure: "lost", ours: "1", target: "0", gate: true})
	if err := tab.verdict(); err == nil || err.Error() != "missed: lost" {
		t.Errorf("got %v, want an error that names the missed measure", err)
	}
	var out strings.Builder
	if err := tab.print(&out); err != nil {
		t.Fatal(err)
	}
	if want := "| lost | 1 | – | – | 0 | **MISSED** |\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("got\n%s, want it to end with %s", out.String(), want)
	}
}

func TestMetricsTextSum(t *testing.T) {
	p := metricsText("# HELP a x\na{b=\"1\"} 2\na{b=\"2\"} 3\nab 7\n")
	if n, sum := p.sum("a{"); n != 2 || sum != 5 {
		t.Errorf("got %d series, %v; want 2, 5", n, sum)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := count(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
