package deploy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"dynamo-metrics/internal/near"

	"github.com/prometheus/common/model"
)

// Rules returns the recording rules and alerts with the default thresholds.
func Rules() string { return text("prometheus/rules.yaml") }

// A Threshold is a number in the rules that operators may set. Numbers and durations have
// Prometheus's syntax.
type Threshold struct {
	Name, Default, Least, Most, Meaning string
}

// thresholdRow matches a threshold in the table at the top of the rules.
var thresholdRow = regexp.MustCompile(`(?m)^# ([a-z_]+) +([0-9]\S*) +(\S+) +(\S+) +(.+)$`)

// Thresholds returns the thresholds in the table at the top of the rules.
func Thresholds() []Threshold {
	var all []Threshold
	for _, m := range thresholdRow.FindAllStringSubmatch(Rules(), -1) {
		all = append(all, Threshold{Name: m[1], Default: m[2], Least: m[3], Most: m[4], Meaning: m[5]})
	}
	return all
}

// RulesWith returns the rules after setting some thresholds, each as name=value.
func RulesWith(settings []string) (string, error) {
	rules, set := Rules(), make(map[string]bool)
	for _, s := range settings {
		name, given, found := strings.Cut(s, "=")
		t, known := threshold(name)
		switch {
		case !found:
			return "", fmt.Errorf("--set %q: want name=value", s)
		case !known:
			return "", fmt.Errorf("--set %q: no such threshold: %s", s, near.Suggestion(name, thresholdNames()))
		case set[name]:
			return "", fmt.Errorf("--set %q: want each threshold once", s)
		}
		set[name] = true
		value, err := t.parse(given)
		if err != nil {
			return "", fmt.Errorf("--set %q: %w", s, err)
		}
		rules = t.replaceIn(rules, value)
	}
	return rules, nil
}

func threshold(name string) (Threshold, bool) {
	for _, t := range Thresholds() {
		if t.Name == name {
			return t, true
		}
	}
	return Threshold{}, false
}

func thresholdNames() []string {
	var all []string
	for _, t := range Thresholds() {
		all = append(all, t.Name)
	}
	return all
}

// isDuration reports whether the threshold is a duration, like its default.
func (t Threshold) isDuration() bool {
	_, err := strconv.ParseFloat(t.Default, 64)
	return err != nil
}

// number converts a value to a number. A duration is in seconds.
func (t Threshold) number(s string) (float64, error) {
	if t.isDuration() {
		d, err := model.ParseDuration(s)
		return float64(d) / 1e9, err
	}
	return strconv.ParseFloat(s, 64)
}

// parse returns a value in the form in which the rules have it.
func (t Threshold) parse(s string) (string, error) {
	kind := "a number"
	if t.isDuration() {
		kind = "a duration"
	}
	least, _ := t.number(t.Least)
	most, _ := t.number(t.Most)
	n, err := t.number(s)
	if err != nil || !(n >= least && n <= most) { // the negation also excludes NaN
		return "", fmt.Errorf("want %s from %s to %s", kind, t.Least, t.Most)
	}
	if t.isDuration() {
		d, err := model.ParseDuration(s)
		return d.String(), err
	}
	return strconv.FormatFloat(n, 'f', -1, 64), nil
}

// replaceIn replaces the default in the rules by a value: once in each line that ends in
// the threshold's name.
func (t Threshold) replaceIn(rules, value string) string {
	var b strings.Builder
	for line := range strings.Lines(rules) {
		if code, marked := strings.CutSuffix(line, " # "+t.Name+"\n"); marked {
			line = t.linePattern().ReplaceAllLiteralString(code, value) + " # " + t.Name + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// linePattern matches the default in a line. It must not be a part of another number or
// name.
func (t Threshold) linePattern() *regexp.Regexp {
	return regexp.MustCompile(`\b` + regexp.QuoteMeta(t.Default) + `\b`)
}
