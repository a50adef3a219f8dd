package fleet

import "strings"

// Nearest is the registered endpoint whose name is closest to what is watched, if
// one is close.
func (t Target) Nearest(registered []Endpoint) (best Endpoint, ok bool) {
	least := -1
	for _, e := range registered {
		component, near := distance(t.Component, e.Component)
		if !near || t.Covers(e) {
			continue
		}
		name, near := distance(t.Name, e.Name)
		if t.Name == "" {
			name, near = 0, true
		}
		if near && (least < 0 || component+name < least) {
			best, least = e, component+name
		}
	}
	return best, least >= 0
}

// alike is a name without what does not count.
func alike(s string) []rune { return []rune(strings.ToLower(separators.Replace(s))) }

var separators = strings.NewReplacer("-", "", "_", "", ".", "")

// distance is the number of edits between two names, written alike: case, "-", "_"
// and "." do not count. They are near if at most a third of the wanted one differs.
func distance(want, have string) (edits int, near bool) {
	a, b := alike(want), alike(have)
	if len(b)-len(a) > len(a)/3 {
		return len(b), false // so many at least: what is registered may have any name
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j := range b {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	edits = row[len(b)]
	return edits, edits <= len(a)/3
}
