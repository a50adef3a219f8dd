package fleet

import "dynamo-metrics/internal/near"

// Nearest returns the registered endpoint whose name is most similar to the target's. It
// returns false if no name is similar.
func (t Target) Nearest(registered []Endpoint) (best Endpoint, ok bool) {
	least := -1
	for _, e := range registered {
		component, alike := near.Distance(t.Component, e.Component)
		if !alike || t.Covers(e) {
			continue
		}
		name, alike := near.Distance(t.Name, e.Name)
		if t.Name == "" {
			name, alike = 0, true
		}
		if alike && (least < 0 || component+name < least) {
			best, least = e, component+name
		}
	}
	return best, least >= 0
}
