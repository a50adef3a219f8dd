package tracing

import (
	"log/slog"
	"math"
	"strings"
	"testing"
)

func TestFilterPicksTheMostSpecificDirective(t *testing.T) {
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
		f, err := parseFilter(c.filter)
		if err != nil {
			t.Errorf("%q: %v", c.filter, err)
			continue
		}
		if got := f.min(c.target); got != c.want {
			t.Errorf("%q for %q: got %d, want %d", c.filter, c.target, got, c.want)
		}
	}
}

func TestFilterErrorNamesTheDirectiveAndWhatIsAllowed(t *testing.T) {
	const form = "want a level, target, target=level or target[span{field=value}]=level, separated by commas"
	for filter, want := range map[string]string{
		"metrics=loud":            `DYN_LOG "metrics=loud": level "loud": want error, warn, info, debug, trace or off`,
		"info, metrics=6 ,nats=1": `DYN_LOG "metrics=6": level "6": want error, warn, info, debug, trace or off`,
		"a=b=c":                   `DYN_LOG "a=b=c": level "b=c": want error, warn, info, debug, trace or off`,
		"metrics[request]=loud":   `DYN_LOG "metrics[request]=loud": level "loud": want error, warn, info, debug, trace or off`,
		"=debug":                  `DYN_LOG "=debug": ` + form,
		"info;nats=debug":         `DYN_LOG "info;nats=debug": ` + form,
		"info nats=debug":         `DYN_LOG "info nats=debug": ` + form,
		"nats = debug":            `DYN_LOG "nats = debug": ` + form,
		"metrics[request":         `DYN_LOG "metrics[request": ` + form,
		"metrics[r]debug":         `DYN_LOG "metrics[r]debug": ` + form,
		"[r{}]=debug":             `DYN_LOG "[r{}]=debug": ` + form,
		"[r{a=1,b=2}]=debug":      `DYN_LOG "[r{a=1": ` + form,
		"\xff":                    `DYN_LOG "\xff": ` + form,
	} {
		_, err := New(nil, environment("DYN_LOG", filter), false, "metrics")
		if err == nil {
			t.Errorf("%q: got no error, want %s", filter, want)
			continue
		}
		equal(t, err.Error(), want)
	}
}

func TestEnabledFollowsTheTarget(t *testing.T) {
	l, _ := logger(t, false, "DYN_LOG", "nats=trace,etcd=off")
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

// FuzzFilter asserts that no DYN_LOG makes the program panic, and that what is
// refused is refused in one line.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "info", "metrics=debug,nats=error", "a=b=c", "a[b{c=d}]=trace", "[", "]=", "a,,\n", "\xff=5"} {
		f.Add(s, "metrics")
	}
	f.Fuzz(func(t *testing.T, s, target string) {
		filter, err := parseFilter(s)
		if err == nil {
			filter.min(target)
			return
		}
		if got := err.Error(); !strings.HasPrefix(got, `DYN_LOG "`) || strings.Contains(got, "\n") {
			t.Errorf("got %q, want one line about DYN_LOG", got)
		}
	})
}
