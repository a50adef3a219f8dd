package dynlog

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"

	"dynamo-metrics/internal/near"
)

// levels are the level names and numbers that tracing's EnvFilter accepts.
var levels = map[string]slog.Level{
	"off": math.MaxInt, "0": math.MaxInt,
	"error": slog.LevelError, "1": slog.LevelError,
	"warn": slog.LevelWarn, "2": slog.LevelWarn,
	"info": slog.LevelInfo, "3": slog.LevelInfo,
	"debug": slog.LevelDebug, "4": slog.LevelDebug,
	"trace": math.MinInt, "5": math.MinInt,
}

var levelNames = []string{"error", "warn", "info", "debug", "trace", "off"}

// directivePattern matches target, [span{field=value}] and =level, each optional. EnvFilter
// allows any character in a target. Here a target has only the characters that are used in
// practice, so that "info;nats=error" is an error and not a strange target.
var directivePattern = regexp.MustCompile(`^([\pL\pN_:./-]*)(\[[^\]{]*(?:\{[^}]+\})?\])?(=.*)?$`)

type directive struct {
	target string // a prefix: empty matches every target
	min    slog.Level
}

// filter holds the directives of DYN_LOG and of the files of [settings], in their order.
type filter []directive

// addList adds the directives of a comma-separated list, and returns warnings. As in EnvFilter a
// comma always ends a directive, even inside braces.
func (f *filter) addList(setting, list string, own []string) (warnings []string) {
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			warnings = append(warnings, f.add(setting, part, own)...)
		}
	}
	return warnings
}

// add adds a directive of tracing's EnvFilter, and returns warnings. An invalid directive is
// ignored and never an error, because all Dynamo programs share the setting. A target without a
// directive keeps its level. EnvFilter would switch it off as soon as there is any directive.
func (f *filter) add(setting, directive string, own []string) (warnings []string) {
	d, plain, err := parseDirective(directive)
	switch {
	case err != nil:
		return []string{fmt.Sprintf("%s %s is ignored: %v", setting, quoteShort(directive), err)}
	case !plain:
		return nil
	}
	*f = append(*f, d)
	if warning := d.warning(directive, own); warning != "" {
		return []string{fmt.Sprintf("%s %s: %s", setting, quoteShort(directive), warning)}
	}
	return nil
}

// parseDirective parses one directive. Plain is false for directives that select by span or
// field: slog has no spans, so they never match.
func parseDirective(s string) (d directive, plain bool, err error) {
	if level, ok := levels[strings.ToLower(s)]; ok {
		return directive{min: level}, true, nil
	}
	m := directivePattern.FindStringSubmatch(s)
	if m == nil || m[1] == "" && m[2] == "" {
		return d, false, errors.New("want a level, target, target=level or target[span{field=value}]=level, separated by commas")
	}
	name := strings.TrimPrefix(m[3], "=")
	if name == "" {
		name = "trace" // a target alone means every level
	}
	level, ok := levels[strings.ToLower(name)]
	if !ok {
		return d, false, fmt.Errorf("level %s: %s", quoteShort(name), near.Suggestion(name, levelNames))
	}
	return directive{target: m[1], min: level}, m[2] == "", nil
}

// min returns the lowest level that is logged for the target. The longest matching prefix
// decides, and the later of two equal ones. As in tracing a prefix need not end at "::", so
// metrics also matches metrics_aggregator.
func (f filter) min(target string) slog.Level {
	var best directive
	for _, d := range f {
		if strings.HasPrefix(target, d.target) && len(d.target) >= len(best.target) {
			best = d
		}
	}
	return best.min
}
