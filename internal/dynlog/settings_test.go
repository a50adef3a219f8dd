package dynlog

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeFile writes a file and returns its path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSettingsFilesApplyInDynamosOrder checks that DYN_LOG overrides a file's level, and that a
// file's filters override DYN_LOG.
func TestSettingsFilesApplyInDynamosOrder(t *testing.T) {
	const both = "log_level = \"error\"\n[log_filters]\nnats = \"debug\"\n\"metrics::push\" = \"trace\"\n"
	const info, warn, errors, debug, all = slog.LevelInfo, slog.LevelWarn, slog.LevelError, slog.LevelDebug, slog.Level(math.MinInt)
	for name, c := range map[string]struct {
		ofAll, own, env                string
		metrics, nats, etcd, ofPushing slog.Level
	}{
		"none":                         {"", "", "", info, info, info, info},
		"one for all":                  {both, "", "", errors, debug, errors, all},
		"an own one":                   {"", both, "", errors, debug, errors, all},
		"a level alone":                {"", `log_level = "warn"`, "", warn, warn, warn, warn},
		"filters alone":                {"", "log_filters = {nats = \"off\"}", "", info, math.MaxInt, info, info},
		"the own one counts":           {both, "log_level = \"debug\"\n[log_filters]\nnats = \"warn\"", "", debug, warn, debug, all},
		"what it does not say":         {both, "[log_filters]\netcd = \"warn\"", "", errors, debug, warn, all},
		"DYN_LOG before its level":     {"", both, "info", info, debug, info, all},
		"DYN_LOG after its filters":    {"", both, "nats=error", errors, debug, errors, all},
		"DYN_LOG of another target":    {"", both, "etcd=info", errors, debug, info, all},
		"what others have beside them": {"", both + "\"x\" = \"loud\"\n", "", errors, debug, errors, all},
		"other settings":               {"", "other = 1\n" + both, "", errors, debug, errors, all},
		"not TOML":                     {both, "log_level = error", "", errors, debug, errors, all},
		"of other types":               {both, "log_level = 3", "", errors, debug, errors, all},
		"with nested tables":           {"", "log_level = \"error\"\n[log_filters.metrics]\npush = \"info\"", "", info, info, info, info},
	} {
		dir := t.TempDir()
		f, _ := readFilter(fakeEnv(settingsFileEnv, writeFile(t, dir, "own.toml", c.own), "DYN_LOG", c.env), writeFile(t, dir, "all.toml", c.ofAll), ownTargets)
		for target, want := range map[string]slog.Level{"metrics": c.metrics, "nats": c.nats, "etcd": c.etcd, "metrics::push": c.ofPushing} {
			if got := f.min(target); got != want {
				t.Errorf("%s: %s is at %d, want %d", name, target, got, want)
			}
		}
	}
}

func TestSettingsFileErrorsAreWarnings(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	const ignored = "A file of log settings (DYN_LOGGING_CONFIG_PATH) is ignored: "
	for path, want := range map[string]string{
		"":                                 "",
		filepath.Join(dir, "nowhere"):      ignored + "stat " + dir + "/nowhere: no such file or directory",
		dir:                                ignored + dir + ": not a regular file",
		pipe:                               ignored + pipe + ": not a regular file",
		writeFile(t, dir, "empty", ""):     "",
		writeFile(t, dir, "broken", "a b"): ignored + dir + "/broken: toml: line 1: ",
		writeFile(t, dir, "typed", "log_level = 3"):                                ignored + dir + "/typed: toml: ",
		writeFile(t, dir, "level", `log_level = "inof"`):                           dir + `/level: log_level "inof": neither a level nor a known target: did you mean info?`,
		writeFile(t, dir, "filter", `log_filters = {metrcs = "info"}`):             dir + `/filter: log_filters "metrcs=info": not a known target: did you mean metrics?`,
		writeFile(t, dir, "loud", `log_filters = {dynamo_llm = "loud"}`):           dir + `/loud: log_filters "dynamo_llm=loud" is ignored: level "loud": want one of `,
		writeFile(t, dir, "comma", `log_filters = {"a,b" = "info"}`):               dir + `/comma: log_filters "a,b=info" is ignored: want a level`,
		writeFile(t, dir, "long", strings.Repeat("#", 65537)):                      ignored + dir + "/long: more than 65536 bytes",
		writeFile(t, dir, "full", strings.Repeat("#", 65536)):                      "",
		writeFile(t, dir, "Dynamo's", "[log_filters]\n\"dynamo_llm\" = \"debug\""): "",
	} {
		got := warningsOf(t, settingsFileEnv, path)
		if want == "" && got != nil || want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want)) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if _, warnings := readFilter(fakeEnv(), filepath.Join(dir, "nowhere"), ownTargets); warnings != nil {
		t.Errorf("without a system file: %q", warnings)
	}
}

func TestSettingsFileIsFoundInParentDirectories(t *testing.T) {
	top := t.TempDir()
	below := filepath.Join(top, "a", "b")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, top, "logging.toml", "")
	nearest := writeFile(t, filepath.Join(top, "a"), "logging.toml", "")
	t.Chdir(below)
	for name, want := range map[string]string{"logging.toml": nearest, "./logging.toml": nearest, "nowhere.toml": "nowhere.toml", "/x": "/x", "": ""} {
		if diff := cmp.Diff(want, findSettingsFile(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
