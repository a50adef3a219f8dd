package dynlog

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilterPicksMostSpecificDirective(t *testing.T) {
	const off, all = slog.Level(math.MaxInt), slog.Level(math.MinInt)
	for _, c := range []struct {
		filter, target string
		want           slog.Level
	}{
		{"", "metrics", slog.LevelInfo},
		{" , ,", "metrics", slog.LevelInfo},
		{"error", "metrics", slog.LevelError},
		{"Warn", "metrics", slog.LevelWarn},
		{"INFO", "metrics", slog.LevelInfo},
		{"dEbUg", "metrics", slog.LevelDebug},
		{"trace", "metrics", all},
		{"off", "metrics", off},
		{"0", "metrics", off},
		{"1", "metrics", slog.LevelError},
		{"2", "metrics", slog.LevelWarn},
		{"3", "metrics", slog.LevelInfo},
		{"4", "metrics", slog.LevelDebug},
		{"5", "metrics", all},
		{"info,debug", "metrics", slog.LevelDebug},
		{"metrics=debug,nats=error", "metrics", slog.LevelDebug},
		{"metrics=debug,nats=error", "nats", slog.LevelError},
		{"metrics=debug,nats=error", "etcd", slog.LevelInfo},
		{"metrics=debug , warn", "etcd", slog.LevelWarn},
		{"metrics=2", "metrics", slog.LevelWarn},
		{"metrics", "metrics", all},
		{"metrics=", "metrics", all},
		{"6", "6", all},
		{"metrics=off", "metrics::push", off},
		{"metrics=warn", "metrics_aggregator", slog.LevelWarn},
		{"metrics::push=warn", "metrics", slog.LevelInfo},
		{"metrics::push=warn,metrics=debug", "metrics::push::http", slog.LevelWarn},
		{"metrics=debug,metrics::push=warn", "metrics::push::http", slog.LevelWarn},
		{"metrics=debug,metrics=error", "metrics", slog.LevelError},
		{"[request]=trace", "metrics", slog.LevelInfo},
		{"[request{id=5}]=trace,warn", "metrics", slog.LevelWarn},
		{"[{id}]", "metrics", slog.LevelInfo},
		{`metrics[request{id="[5]"}]=debug`, "metrics", slog.LevelInfo},
		{"metrics[request]", "metrics", slog.LevelInfo},
	} {
		f, _ := readFilter(fakeEnv("DYN_LOG", c.filter), "", ownTargets)
		if got := f.min(c.target); got != c.want {
			t.Errorf("%q for %q: got %d, want %d", c.filter, c.target, got, c.want)
		}
	}
}

// warningsOf returns the warnings that a new logger logs first.
func warningsOf(t *testing.T, env ...string) []string {
	t.Helper()
	var b bytes.Buffer
	New(&b, fakeEnv(env...), false, "metrics")
	var all []string
	for line := range strings.Lines(b.String()) {
		_, message, found := strings.Cut(line, "  WARN metrics: ")
		if !found {
			t.Errorf("no warning: %s", line)
		}
		all = append(all, strings.TrimSuffix(message, "\n"))
	}
	return all
}

func TestFilterWarnsOfInvalidDirectives(t *testing.T) {
	const (
		form   = ` is ignored: want a level, target, target=level or target[span{field=value}]=level, separated by commas`
		level  = "want one of error, warn, info, debug, trace, off"
		target = "metrics, nats, etcd, files, kubernetes, http, mock_worker, devstack"
	)
	for filter, want := range map[string][]string{
		"metrics=loud":            {`DYN_LOG "metrics=loud" is ignored: level "loud": ` + level},
		"metrics=debgu":           {`DYN_LOG "metrics=debgu" is ignored: level "debgu": did you mean debug?`},
		"info, metrics=6 ,nats=1": {`DYN_LOG "metrics=6" is ignored: level "6": ` + level},
		"a=b=c":                   {`DYN_LOG "a=b=c" is ignored: level "b=c": ` + level},
		"metrics[request]=loud":   {`DYN_LOG "metrics[request]=loud" is ignored: level "loud": ` + level},
		"=debug":                  {`DYN_LOG "=debug"` + form},
		"info;nats=debug":         {`DYN_LOG "info;nats=debug"` + form},
		"info nats=debug":         {`DYN_LOG "info nats=debug"` + form},
		"nats = debug":            {`DYN_LOG "nats = debug"` + form},
		"metrics[request":         {`DYN_LOG "metrics[request"` + form},
		"metrics[r]debug":         {`DYN_LOG "metrics[r]debug"` + form},
		"[r{}]=debug":             {`DYN_LOG "[r{}]=debug"` + form},
		"[r{a=1,b=2}]=debug":      {`DYN_LOG "[r{a=1"` + form, `DYN_LOG "b=2}]=debug" is ignored: level "2}]=debug": ` + level},
		"\xff":                    {`DYN_LOG "\xff"` + form},
		"inof":                    {`DYN_LOG "inof": neither a level nor a known target: did you mean info?`},
		"inof,inof , inof":        {`DYN_LOG "inof": neither a level nor a known target: did you mean info?`},
		"natss":                   {`DYN_LOG "natss": neither a level nor a known target: did you mean nats?`},
		"loud":                    {`DYN_LOG "loud": neither a level nor a known target: ` + level + ", " + target},
		"info,metrcs=debug":       {`DYN_LOG "metrcs=debug": not a known target: did you mean metrics?`},
		"mock_wroker=debug":       {`DYN_LOG "mock_wroker=debug": not a known target: did you mean mock_worker?`},
		"inof=debug":              {`DYN_LOG "inof=debug": not a known target: want one of ` + target},
		"debgu,metrcs=info":       {`DYN_LOG "debgu": neither a level nor a known target: did you mean debug?`, `DYN_LOG "metrcs=info": not a known target: did you mean metrics?`},
	} {
		if diff := cmp.Diff(want, warningsOf(t, "DYN_LOG", filter)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", filter, diff)
		}
	}
}

func TestFilterWarningsAreBounded(t *testing.T) {
	long := strings.Repeat("é", 50_000)
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("w%d=loud", i))
	}
	for filter, want := range map[string]int{long: 1, long + "=debug": 1, "metrics=" + long: 1, long + ";": 1, strings.Join(many, ","): 11} {
		all := warningsOf(t, "DYN_LOG", filter)
		if size := len(strings.Join(all, "")); len(all) != want || size > want*500 {
			t.Errorf("%.20s: %d warnings of %d bytes", filter, len(all), size)
		}
	}
	if got, want := warningsOf(t, "DYN_LOG", strings.Join(many, ","))[10], "DYN_LOG and the files of log settings have 9990 more invalid settings"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFilterAcceptsForeignTargets(t *testing.T) {
	for _, filter := range []string{
		"", "info", "WARN", "metrics", "metrics=debug,nats=error", "met=debug", "metrics::push=debug", "http,etcd,files,kubernetes",
		"info,dynamo_runtime=debug,dynamo_llm::kv_router=trace", "info,dynamo_runtime::system_status_server:trace", "dynamo_kv_router",
		"h2=error,tower=error,hyper_util=error,neli=error,async_nats=error,rustls=error,tokenizers=error,axum=error,tonic=error," +
			"mistralrs_core=error,hf_hub=error,opentelemetry=error,opentelemetry-otlp=error,opentelemetry_sdk=error", // as in Dynamo's own documentation
		"hyper,tokio,reqwest,kube,zmq,vllm,sglang,etcd_client,vllm.engine.core=debug,request_span=trace",
		"[request]=trace,tokio[span{x=1}]=debug,metrcs[span]=info",
	} {
		if got := warningsOf(t, "DYN_LOG", filter); got != nil {
			t.Errorf("%q: %q", filter, got)
		}
	}
}

// TestFilterKnowsEveryTarget checks that all targets in the code are in ownTargets. Otherwise a
// directive for them would cause a warning.
func TestFilterKnowsEveryTarget(t *testing.T) {
	used := regexp.MustCompile(`dynlog\.Target\([a-z.]+, "(\w+)"\)|cli\.Run\("(\w+)"`)
	found := 0
	for _, root := range []string{"..", "../../cmd"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range used.FindAllStringSubmatch(string(text), -1) {
				found++
				if target := m[1] + m[2]; !slices.Contains(ownTargets, target) {
					t.Errorf("%s: %s is none of %q", path, target, ownTargets)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < len(ownTargets) {
		t.Errorf("found %d uses of targets", found)
	}
}

// TestFilterKeepsValidDirectives shows that an invalid directive does not affect the others.
func TestFilterKeepsValidDirectives(t *testing.T) {
	l, out := newTestLogger(t, false, "DYN_LOG", "nats=loud,warn,etcd=debug,a=b=c,=x")
	out.Reset()
	l.Info("no")
	l.Warn("yes")
	Target(l, "nats").Info("no")
	Target(l, "etcd").Debug("yes")
	if got := out.String(); strings.Count(got, "\n") != 2 || strings.Contains(got, "no\n") {
		t.Errorf("got\n%s", got)
	}
	if got := warningsOf(t, "DYN_LOG", "error,metrics=loud"); got != nil {
		t.Errorf("with the level error, got %q", got)
	}
}

func TestHandlerEnabledFollowsTarget(t *testing.T) {
	l, _ := newTestLogger(t, false, "DYN_LOG", "nats=trace,etcd=off")
	for _, c := range []struct {
		target string
		level  slog.Level
		want   bool
	}{
		{"metrics", slog.LevelInfo, true},
		{"metrics", slog.LevelDebug, false},
		{"nats", LevelTrace - 10, true},
		{"etcd", slog.LevelError, false},
	} {
		if got := Target(l, c.target).Enabled(t.Context(), c.level); got != c.want {
			t.Errorf("%s at %v: got %v, want %v", c.target, c.level, got, c.want)
		}
	}
}

// FuzzFilter asserts that no DYN_LOG causes a panic, and that each warning is one line.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "info", "metrics=debug,nats=error", "a=b=c", "a[b{c=d}]=trace", "[", "]=", "a,,\n", "\xff=5", "inof"} {
		f.Add(s, "metrics")
	}
	f.Fuzz(func(t *testing.T, s, target string) {
		filter, warnings := readFilter(fakeEnv("DYN_LOG", s), "", ownTargets)
		filter.min(target)
		for _, got := range warnings {
			if !strings.HasPrefix(got, `DYN_LOG "`) || strings.Contains(got, "\n") {
				t.Errorf("got %q, want one line about DYN_LOG", got)
			}
		}
	})
}
