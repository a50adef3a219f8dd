// Package near finds the most similar name to a misspelt one.
package near

import "strings"

// normalize returns a name without separators, in lower case.
func normalize(s string) []rune { return []rune(strings.ToLower(separators.Replace(s))) }

var separators = strings.NewReplacer("-", "", "_", "", ".", "")

// Distance returns the edit distance of two names. Case, "-", "_" and "." do not count, and two
// swapped letters are one edit. The names are near if the edits are at most a third of the
// letters of the wanted one.
func Distance(want, have string) (edits int, near bool) {
	a, b := normalize(want), normalize(have)
	if len(b)-len(a) > len(a)/3 {
		return len(b), false // a lower bound: the other name may be very long
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

// Nearest returns the name that is most similar to the wanted one, or "" if none is near.
func Nearest(want string, names []string) (best string) {
	least := -1
	for _, name := range names {
		if edits, near := Distance(want, name); near && (least < 0 || edits < least) {
			best, least = name, edits
		}
	}
	return best
}

// Suggestion returns the advice for an unknown name. It names the nearest name, or all if none is
// near.
func Suggestion(want string, names []string) string {
	if best := Nearest(want, names); best != "" {
		return "did you mean " + best + "?"
	}
	return "want one of " + strings.Join(names, ", ")
}
