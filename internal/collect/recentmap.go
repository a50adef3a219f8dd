package collect

// recentMap is a bounded map that forgets the entries that were not used for longest. It has two
// generations. An entry that is used moves to the young one. When that is full it becomes the
// old one, and the entries left in the old one are dropped. So the map holds at least one
// generation of the entries that were used last, and at most two.
type recentMap[K comparable, V any] struct {
	generationSize int // the size of one generation
	young, old     map[K]V
	extra          int // the size of the young generation's values beyond one each
}

// get returns the value of a key, or the zero value, and whether the caller must put it back
// because it is not in the young generation.
func (r *recentMap[K, V]) get(key K) (v V, mustPut bool) {
	v, known := r.young[key]
	if known {
		return v, false
	}
	if v, known = r.old[key]; known {
		delete(r.old, key)
	}
	return v, true
}

// put stores a value. more is by how much its size beyond one has grown since the last put.
func (r *recentMap[K, V]) put(key K, v V, more int) {
	if r.young == nil || len(r.young)+r.extra >= r.generationSize {
		r.old, r.young, r.extra = r.young, make(map[K]V), 0
	}
	r.young[key] = v
	r.extra += more
}

// reset removes all entries.
func (r *recentMap[K, V]) reset() { r.young, r.old, r.extra = nil, nil, 0 }
