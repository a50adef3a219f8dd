package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// row is one line of the table.
type row struct {
	measure        string
	ours, baseline string
	ratio          string
	target         string // empty: there is no target
	met            bool
	gate           bool // the figure is a ratio or a count, which does not depend on the machine
}

type table struct {
	quick bool
	rows  []row
}

func (t *table) add(r row) { t.rows = append(t.rows, r) }

// print writes the table as Markdown, below a line that describes the machine.
func (t *table) print(w io.Writer) error {
	out := bufio.NewWriter(w)
	size := ""
	if t.quick {
		size = " This is a quick run, with fewer events and workers."
	}
	fmt.Fprintf(out, "%s%s\n\n", machine(), size)
	fmt.Fprintln(out, "| measure | ours | baseline | ratio | target | verdict |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|")
	dash := func(s string) string {
		if s == "" {
			return "–"
		}
		return s
	}
	for _, r := range t.rows {
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", r.measure, r.ours, dash(r.baseline), dash(r.ratio), dash(r.target), r.verdict())
	}
	return out.Flush()
}

func (r row) verdict() string {
	switch {
	case r.target == "":
		return "no target"
	case r.met:
		return "met"
	case r.gate:
		return "**MISSED**"
	default:
		return "missed"
	}
}

// verdict returns an error if a ratio or a count has missed its target.
func (t *table) verdict() error {
	var missed []string
	for _, r := range t.rows {
		if r.gate && !r.met {
			missed = append(missed, r.measure)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

// machine describes the machine that the figures are from.
func machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	load := ""
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if fields := strings.Fields(string(b)); len(fields) > 0 {
			load = ", load average at the end " + fields[0]
		}
	}
	return fmt.Sprintf("%d cores of %s, %s/%s, %s%s.", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version(), load)
}

// count formats a number with commas between thousands.
func count[N int | uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func perSecond(n int, took time.Duration) string {
	return count(int(float64(n)/took.Seconds())) + "/s"
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func nanoseconds(v float64) string { return fmt.Sprintf("%.0f ns", v) }

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

func times(v float64) string { return fmt.Sprintf("%.3g", v) }
