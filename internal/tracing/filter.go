package tracing

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
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

// directiveForm is target, [span{field=value}] and =level, each optional.
// EnvFilter lets a target have any character; here it has those that targets
// are made of, so that "info;nats=error" is an error and not a strange target.
var directiveForm = regexp.MustCompile(`^([\pL\pN_:./-]*)(\[[^\]{]*(?:\{[^}]+\})?\])?(=.*)?$`)

type directive struct {
	target string // a prefix: empty matches every target
	min    slog.Level
}

// filter is what DYN_LOG says, in its order.
type filter []directive

// parseFilter reads tracing's EnvFilter list. It differs in two ways, both
// meant for the operator: a directive that cannot be parsed is an error, where
// the original warns and goes on; and targets that no directive names stay at
// info, where EnvFilter switches them off as soon as there is any directive.
// As in EnvFilter a comma always ends a directive, even inside braces.
func parseFilter(s string) (filter, error) {
	f := filter{{min: slog.LevelInfo}}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		d, plain, err := parseDirective(part)
		if err != nil {
			return nil, fmt.Errorf("DYN_LOG %q: %w", part, err)
		}
		if plain {
			f = append(f, d)
		}
	}
	return f, nil
}

// parseDirective reads one directive. Plain is false for those that select by
// span or field: slog has no spans, so they can never match.
func parseDirective(s string) (d directive, plain bool, err error) {
	if level, ok := levels[strings.ToLower(s)]; ok {
		return directive{min: level}, true, nil
	}
	m := directiveForm.FindStringSubmatch(s)
	if m == nil || m[1] == "" && m[2] == "" {
		return d, false, errors.New("want a level, target, target=level or target[span{field=value}]=level, separated by commas")
	}
	name := strings.TrimPrefix(m[3], "=")
	if name == "" {
		name = "trace" // a target alone means all of it
	}
	level, ok := levels[strings.ToLower(name)]
	if !ok {
		return d, false, fmt.Errorf("level %q: want error, warn, info, debug, trace or off", name)
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
