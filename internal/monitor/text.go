package monitor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// few is how many workers, or other things, a sentence names.
const maxListed = 3

// list names the first few of all, and says how many more there are.
func summarizeStrings(all []string) string { return summarize(all, func(s string) string { return s }) }

// some names the first few of all as name does.
func summarize[T any](all []T, name func(T) string) string {
	if len(all) <= maxListed {
		return joinAnd(firstNames(all, name))
	}
	return fmt.Sprintf("%s and %s more", strings.Join(firstNames(all, name), ", "), formatCount(len(all)-maxListed))
}

// first are the names of the first few.
func firstNames[T any](all []T, name func(T) string) (names []string) {
	for _, one := range all[:min(maxListed, len(all))] {
		names = append(names, name(one))
	}
	return names
}

// workers is how many these rows are of: the ranks of one are one.
func countWorkers(rows []*row) int { return len(firstRows(rows)) }

// workers are those of the problem, with their endpoint.
func (p *problem) workersOfEndpoint() string {
	return plural(countWorkers(p.rows), "worker") + " of " + p.endpoint.String()
}

// firstOfEach is the first row of each worker, in the order of the rows.
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

// names are those of the first few workers. One of several ranks is named once.
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

// ago is how long ago it was so last.
func (p *problem) lastTrueAgo(m *Monitor) string {
	return formatDuration((m.now - p.lastTrue).duration()) + " ago"
}

// until says of something that it is over.
func endedWithTitle(title string) func(*Monitor, *problem) message {
	return func(m *Monitor, p *problem) message {
		return message{title: title, detail: "That was so until " + p.lastTrueAgo(m) + "."}
	}
}

// and joins names as people do.
func joinAnd(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}

// many is a number of things.
func plural[N int | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return formatCount(n) + " " + one + "s"
}

// thousands is a number with commas.
func formatCount[N int | uint64 | int64](n N) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// lowered has a small letter at its beginning, as in the middle of a sentence.
func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// percent has a space that does not break between number and sign.
func formatPercent(v float64) string { return fmt.Sprintf("%.0f\u00a0%%", math.Round(v*100)) }

func formatFactor(v float64) string { return fmt.Sprintf("%.2f×", v) }

// lasting is a duration as people say it.
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

// either is one of the two.
func ifElse[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
