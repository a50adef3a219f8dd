// Package near finds the name that is meant by one that is misspelt.
package near

import "strings"

// alike is a name without what does not count.
func normalize(s string) []rune { return []rune(strings.ToLower(separators.Replace(s))) }

var separators = strings.NewReplacer("-", "", "_", "", ".", "")

// Distance is the number of edits between two names, written alike: case, "-", "_"
// and "." do not count, and two letters that have changed places are one edit. They are near
// if at most a third of the wanted one differs.
func Distance(want, have string) (edits int, near bool) {
	a, b := normalize(want), normalize(have)
	if len(b)-len(a) > len(a)/3 {
		return len(b), false // so many at least: the other name may be of any length
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range b {
			switch {
			case a[i] == b[j]:
				row[j+1] = last[j]
			case i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j]:
				row[j+1] = 1 + min(before[j-1], last[j], row[j], last[j+1])
			default:
				row[j+1] = 1 + min(last[j], row[j], last[j+1])
			}
		}
	}
	edits = row[len(b)]
	return edits, edits <= len(a)/3
}

// Of is the one of some names that is nearest to the wanted one; empty if none is near.
func Nearest(want string, names []string) (best string) {
	least := -1
	for _, name := range names {
		if edits, near := Distance(want, name); near && (least < 0 || edits < least) {
			best, least = name, edits
		}
	}
	return best
}

// Hint is what to do about a name that is none of some: it names the nearest, or else all.
func Suggestion(want string, names []string) string {
	if best := Nearest(want, names); best != "" {
		return "did you mean " + best + "?"
	}
	return "want one of " + strings.Join(names, ", ")
}
