package deploy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"dynamo-metrics/internal/near"

	"github.com/prometheus/common/model"
)

// Rules are the recording rules and alerts with the thresholds as they are by default.
func Rules() string { return text("prometheus/rules.yaml") }

// A Threshold is a number in the rules that operators may set. Numbers and durations
// are as Prometheus writes them.
type Threshold struct {
	Name, Default, Least, Most, Meaning string
}

// row is a threshold in the table at the head of the rules.
var thresholdRow = regexp.MustCompile(`(?m)^# ([a-z_]+) +([0-9]\S*) +(\S+) +(\S+) +(.+)$`)

// Thresholds lists those of the table at the head of the rules.
func Thresholds() []Threshold {
	var all []Threshold
	for _, m := range thresholdRow.FindAllStringSubmatch(Rules(), -1) {
		all = append(all, Threshold{Name: m[1], Default: m[2], Least: m[3], Most: m[4], Meaning: m[5]})
	}
	return all
}

// RulesWith are the rules with some thresholds set, each as name=value.
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

// isDuration reports whether it is one, as its default is.
func (t Threshold) isDuration() bool {
	_, err := strconv.ParseFloat(t.Default, 64)
	return err != nil
}

// number is what a value amounts to: of a duration, in seconds.
func (t Threshold) number(s string) (float64, error) {
	if t.isDuration() {
		d, err := model.ParseDuration(s)
		return float64(d) / 1e9, err
	}
	return strconv.ParseFloat(s, 64)
}

// parse is a value as the rules have it.
func (t Threshold) parse(s string) (string, error) {
	kind := "a number"
	if t.isDuration() {
		kind = "a duration"
	}
	least, _ := t.number(t.Least)
	most, _ := t.number(t.Most)
	n, err := t.number(s)
	if err != nil || !(n >= least && n <= most) { // NaN is not, either
		return "", fmt.Errorf("want %s from %s to %s", kind, t.Least, t.Most)
	}
	if t.isDuration() {
		d, err := model.ParseDuration(s)
		return d.String(), err
	}
	return strconv.FormatFloat(n, 'f', -1, 64), nil
}

// put writes a value wherever the rules have the default: once in each line that ends
// in the threshold's name.
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

// inLine finds the default in a line. It must not be a piece of another number or name.
func (t Threshold) linePattern() *regexp.Regexp {
	return regexp.MustCompile(`\b` + regexp.QuoteMeta(t.Default) + `\b`)
}
