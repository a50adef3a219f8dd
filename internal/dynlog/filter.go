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

// levels are the names DYN_LOG knows, with EnvFilter's numbers.
var levels = map[string]slog.Level{
	"off": math.MaxInt, "0": math.MaxInt,
	"error": slog.LevelError, "1": slog.LevelError,
	"warn": slog.LevelWarn, "2": slog.LevelWarn,
	"info": slog.LevelInfo, "3": slog.LevelInfo,
	"debug": slog.LevelDebug, "4": slog.LevelDebug,
	"trace": math.MinInt, "5": math.MinInt,
}

var levelNames = []string{"error", "warn", "info", "debug", "trace", "off"}

// directiveForm is target, [span{field=value}] and =level, each optional.
// EnvFilter lets a target have any character; here it has those that targets
// are made of, so that "info;nats=error" is an error and not a strange target.
var directivePattern = regexp.MustCompile(`^([\pL\pN_:./-]*)(\[[^\]{]*(?:\{[^}]+\})?\])?(=.*)?$`)

type directive struct {
	target string // a prefix: empty matches every target
	min    slog.Level
}

// filter is what DYN_LOG and the files of [settings] say, in their order.
type filter []directive

// read adds the directives of a list. As in EnvFilter a comma always ends a directive, even inside
// braces.
func (f *filter) addList(setting, list string, own []string) (wrong []string) {
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			wrong = append(wrong, f.add(setting, part, own)...)
		}
	}
	return wrong
}

// add adds a directive of tracing's EnvFilter, and returns what is wrong with it. Nothing is an
// error, since the setting is that of all of Dynamo's programs: what cannot be understood is left
// out. It differs from EnvFilter in that targets that no directive names stay as they were, where
// EnvFilter switches them off as soon as there is any directive.
func (f *filter) add(setting, directive string, own []string) (wrong []string) {
	d, plain, err := parseDirective(directive)
	switch {
	case err != nil:
		return []string{fmt.Sprintf("%s %s is ignored: %v", setting, quoteShort(directive), err)}
	case !plain:
		return nil
	}
	*f = append(*f, d)
	if doubt := d.warning(directive, own); doubt != "" {
		return []string{fmt.Sprintf("%s %s: %s", setting, quoteShort(directive), doubt)}
	}
	return nil
}

// parseDirective reads one directive. Plain is false for those that select by
// span or field: slog has no spans, so they can never match.
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
		name = "trace" // a target alone means all of it
	}
	level, ok := levels[strings.ToLower(name)]
	if !ok {
		return d, false, fmt.Errorf("level %s: %s", quoteShort(name), near.Suggestion(name, levelNames))
	}
	return directive{target: m[1], min: level}, m[2] == "", nil
}

// min returns the lowest level that passes for the target. The longest prefix
// decides, and of two equal ones the later. As in tracing a prefix need not
// end at "::", so that metrics also matches metrics_aggregator.
func (f filter) min(target string) slog.Level {
	var best directive
	for _, d := range f {
		if strings.HasPrefix(target, d.target) && len(d.target) >= len(best.target) {
			best = d
		}
	}
	return best.min
}
