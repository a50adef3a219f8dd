package dynlog

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

const (
	// settingsOfAll is a file of settings that all of Dynamo's programs read, if it is there.
	systemSettingsFile = "/opt/dynamo/etc/logging.toml"
	// settingsPath is the variable that names another, which is read after it.
	settingsFileEnv = "DYN_LOGGING_CONFIG_PATH"

	maxSettingsBytes = 64 << 10 // bytes of a file
	maxWarnings      = 10       // about DYN_LOG and the files together
	maxQuotedBytes   = 100      // bytes of what a warning is about
)

// settings is a file in TOML for the logs of Dynamo's programs.
type settings struct {
	Level   string            `toml:"log_level"`
	Filters map[string]string `toml:"log_filters"` // levels by targets
}

// readFilter is what the environment and the files that it names say, in Dynamo's order: the
// files' level, then DYN_LOG, then the files' filters. Wrong is what is wrong with that. Where
// Dynamo's programs panic, at a file that cannot be understood, it is left out.
func readFilter(getenv func(string) string, ofAll string, own []string) (f filter, wrong []string) {
	f = filter{{min: levels["info"]}}
	var files []settings
	names := []string{ofAll, findSettingsFile(getenv(settingsFileEnv))}
	for _, name := range names {
		s, err := readSettings(name)
		if err != nil && !(os.IsNotExist(err) && name == ofAll) {
			wrong = append(wrong, fmt.Sprintf("A file of log settings (%s) is ignored: %v", settingsFileEnv, err))
		}
		wrong = append(wrong, f.addList(name+": log_level", s.Level, own)...)
		files = append(files, s)
	}
	wrong = append(wrong, f.addList("DYN_LOG", getenv("DYN_LOG"), own)...)
	for i, s := range files {
		for _, target := range slices.Sorted(maps.Keys(s.Filters)) {
			wrong = append(wrong, f.add(names[i]+": log_filters", target+"="+s.Filters[target], own)...)
		}
	}
	slices.Sort(wrong)
	return f, limitWarnings(slices.Compact(wrong))
}

// few is what can be read of that: the environment may hold 100 KB in one word, or in thousands.
func limitWarnings(wrong []string) []string {
	more := len(wrong) - maxWarnings
	if more > 0 {
		wrong = append(wrong[:maxWarnings], fmt.Sprintf("DYN_LOG and the files of log settings have %d more that cannot be understood", more))
	}
	return wrong
}

// quoted is what a warning is about, cut where it is long.
func quoteShort(s string) string {
	if len(s) > maxQuotedBytes {
		return strconv.Quote(strings.ToValidUTF8(s[:maxQuotedBytes], "")) + "…"
	}
	return strconv.Quote(s)
}

// readSettings reads a file; an empty name is none.
func readSettings(name string) (s settings, err error) {
	if name == "" {
		return s, nil
	}
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() { // a pipe might be waited for
		err = fmt.Errorf("%s: not a file", name)
	}
	if err != nil {
		return s, err
	}
	file, err := os.Open(name)
	if err != nil {
		return s, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSettingsBytes+1))
	if err == nil && len(text) > maxSettingsBytes {
		err = fmt.Errorf("more than %d bytes", maxSettingsBytes)
	}
	if err == nil {
		err = toml.Unmarshal(text, &s)
	}
	if err != nil {
		return settings{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// find is where Dynamo finds a file: a name that is relative counts from the working directory,
// or else from the nearest one above it where there is such a file.
func findSettingsFile(name string) string {
	dir, err := os.Getwd()
	if name == "" || filepath.IsAbs(name) || err != nil {
		return name
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
		if dir == filepath.Dir(dir) {
			return name
		}
	}
}
