package monitor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// maxListed is how many workers, or other things, a sentence names.
const maxListed = 3

// summarizeStrings joins the first few strings, and says how many more there are.
func summarizeStrings(all []string) string { return summarize(all, func(s string) string { return s }) }

// summarize joins the names of the first few elements, and says how many more there are.
func summarize[T any](all []T, name func(T) string) string {
	if len(all) <= maxListed {
		return joinAnd(firstNames(all, name))
	}
	return fmt.Sprintf("%s and %s more", strings.Join(firstNames(all, name), ", "), formatCount(len(all)-maxListed))
}

// firstNames returns the names of the first few elements.
func firstNames[T any](all []T, name func(T) string) (names []string) {
	for _, one := range all[:min(maxListed, len(all))] {
		names = append(names, name(one))
	}
	return names
}

// countWorkers counts the workers of the rows. The ranks of a worker count once.
func countWorkers(rows []*row) int { return len(firstRows(rows)) }

// workersOfEndpoint returns the number of the problem's workers and their endpoint, as text.
func (p *problem) workersOfEndpoint() string {
	return plural(countWorkers(p.rows), "worker") + " of " + p.endpoint.String()
}

// firstRows returns the first row of each worker, in the order of the rows.
func firstRows(rows []*row) (firsts []*row) {
	seen := make(map[fleet.WorkerID]bool, len(rows))
	for _, r := range rows {
		if !seen[r.id] {
			seen[r.id] = true
			firsts = append(firsts, r)
		}
	}
	return firsts
}

// workerNames joins the names of the first few workers. A worker with several ranks is named
// once.
func workerNames(rows []*row) string {
	ranks := make(map[fleet.WorkerID]int, len(rows))
	for _, r := range rows {
		ranks[r.id]++
	}
	return summarize(firstRows(rows), func(r *row) string {
		if n := ranks[r.id]; n > 1 {
			return displayID(r.id) + " (" + plural(n, "rank") + ")"
		}
		return r.name()
	})
}

// lastTrueAgo returns how long ago the condition last held, as text.
func (p *problem) lastTrueAgo(m *Monitor) string {
	return formatDuration((m.now - p.lastTrue).duration()) + " ago"
}

// endedWithTitle returns an ended message that has this title.
func endedWithTitle(title string) func(*Monitor, *problem) message {
	return func(m *Monitor, p *problem) message {
		return message{title: title, detail: "It lasted until " + p.lastTrueAgo(m) + "."}
	}
}

// joinAnd joins names with commas and "and".
func joinAnd(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}

// plural returns a number with its noun.
func plural[N int | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return formatCount(n) + " " + one + "s"
}

// formatCount formats a number with thousands separators.
func formatCount[N int | uint64 | int64](n N) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// lowerFirst lower-cases the first letter, for the middle of a sentence.
func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// formatPercent puts a no-break space between number and sign.
func formatPercent(v float64) string { return fmt.Sprintf("%.0f\u00a0%%", math.Round(v*100)) }

func formatFactor(v float64) string { return fmt.Sprintf("%.2f×", v) }

// formatDuration formats a duration to the second, such as "4 min 22 s".
func formatDuration(d time.Duration) string {
	d = d.Round(time.Second)
	minutes, seconds := int(d.Minutes()), int(d.Seconds())%60
	switch {
	case minutes == 0:
		return fmt.Sprintf("%d s", seconds)
	case minutes < 60 && seconds > 0:
		return fmt.Sprintf("%d min %d s", minutes, seconds)
	case minutes < 60:
		return fmt.Sprintf("%d min", minutes)
	case minutes%60 > 0:
		return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
	}
	return fmt.Sprintf("%d h", minutes/60)
}

// ifElse returns a if the condition holds, else b.
func ifElse[T any](cond bool, a, b T) T {
	if cond {
		return a
	}
	return b
}
