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
	// systemSettingsFile is read by all Dynamo programs, if it exists.
	systemSettingsFile = "/opt/dynamo/etc/logging.toml"
	// settingsFileEnv is the variable that names another file, which is read after it.
	settingsFileEnv = "DYN_LOGGING_CONFIG_PATH"

	maxSettingsBytes = 64 << 10 // largest file, in bytes
	maxWarnings      = 10       // about DYN_LOG and the files together
	maxQuotedBytes   = 100      // longest quotation in a warning, in bytes
)

// settings is a TOML file with log settings for Dynamo programs.
type settings struct {
	Level   string            `toml:"log_level"`
	Filters map[string]string `toml:"log_filters"` // levels by target
}

// readFilter reads the environment and the files that it names, in Dynamo's order: the files'
// level, then DYN_LOG, then the files' filters. It also returns warnings. It ignores a file that
// cannot be parsed, where Dynamo's programs panic.
func readFilter(getenv func(string) string, systemFile string, own []string) (f filter, warnings []string) {
	f = filter{{min: levels["info"]}}
	var files []settings
	names := []string{systemFile, findSettingsFile(getenv(settingsFileEnv))}
	for _, name := range names {
		s, err := readSettings(name)
		if err != nil && !(os.IsNotExist(err) && name == systemFile) {
			warnings = append(warnings, fmt.Sprintf("A file of log settings (%s) is ignored: %v", settingsFileEnv, err))
		}
		warnings = append(warnings, f.addList(name+": log_level", s.Level, own)...)
		files = append(files, s)
	}
	warnings = append(warnings, f.addList("DYN_LOG", getenv("DYN_LOG"), own)...)
	for i, s := range files {
		for _, target := range slices.Sorted(maps.Keys(s.Filters)) {
			warnings = append(warnings, f.add(names[i]+": log_filters", target+"="+s.Filters[target], own)...)
		}
	}
	slices.Sort(warnings)
	return f, limitWarnings(slices.Compact(warnings))
}

// limitWarnings limits the number of warnings: the environment may hold 100 KB of invalid
// directives.
func limitWarnings(warnings []string) []string {
	more := len(warnings) - maxWarnings
	if more > 0 {
		warnings = append(warnings[:maxWarnings], fmt.Sprintf("DYN_LOG and the files of log settings have %d more invalid settings", more))
	}
	return warnings
}

// quoteShort quotes s, shortened if it is long.
func quoteShort(s string) string {
	if len(s) > maxQuotedBytes {
		return strconv.Quote(strings.ToValidUTF8(s[:maxQuotedBytes], "")) + "…"
	}
	return strconv.Quote(s)
}

// readSettings reads a file. It returns no settings for an empty name.
func readSettings(name string) (s settings, err error) {
	if name == "" {
		return s, nil
	}
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() { // opening a pipe might block
		err = fmt.Errorf("%s: not a regular file", name)
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

// findSettingsFile finds a file as Dynamo does: a relative name is tried in the working
// directory, and then in each directory above it.
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
