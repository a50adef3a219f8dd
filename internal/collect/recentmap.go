package collect

// recent is a map that is bounded: where there would be too much in it, what has not been
// used for longest is forgotten. It has two generations. What is used moves into the young
// one, and when that is full it becomes the old one, whose rest goes. So at least as much as
// one generation holds of what was used last is remembered, and twice as much at most.
type recentMap[K comparable, V any] struct {
	generationSize int // that a generation holds
	young, old     map[K]V
	extra          int // what values of the young generation hold beyond one each
}

// get is the value of a key, the zero value if there is none, and whether it is new in the
// young generation: it must be put back.
func (r *recentMap[K, V]) get(key K) (v V, fresh bool) {
	v, known := r.young[key]
	if known {
		return v, false
	}
	if v, known = r.old[key]; known {
		delete(r.old, key)
	}
	return v, true
}

// put keeps a value, which holds so much more than it did there, beyond one.
func (r *recentMap[K, V]) put(key K, v V, more int) {
	if r.young == nil || len(r.young)+r.extra >= r.generationSize {
		r.old, r.young, r.extra = r.young, make(map[K]V), 0
	}
	r.young[key] = v
	r.extra += more
}

// forget forgets everything.
func (r *recentMap[K, V]) reset() { r.young, r.old, r.extra = nil, nil, 0 }
