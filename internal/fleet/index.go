package fleet

import "iter"

// index has all workers by their ids. Workers with a lease are found by that number alone,
// because every event looks one up.
type index struct {
	leased map[uint64]*worker
	static map[string]*worker
}

func newIndex() index {
	return index{leased: make(map[uint64]*worker), static: make(map[string]*worker)}
}

// get returns the worker with the id, or nil.
func (r *index) get(id WorkerID) *worker {
	if id.IsStatic() {
		return r.static[id.Static]
	}
	return r.leased[id.Lease]
}

func (r *index) add(w *worker) {
	if w.id.IsStatic() {
		r.static[w.id.Static] = w
	} else {
		r.leased[w.id.Lease] = w
	}
}

func (r *index) remove(w *worker) {
	if w.id.IsStatic() {
		delete(r.static, w.id.Static)
	} else {
		delete(r.leased, w.id.Lease)
	}
}

func (r *index) len() int { return len(r.leased) + len(r.static) }

// all returns an iterator over the workers in no order. Workers may be removed meanwhile.
func (r *index) all() iter.Seq[*worker] {
	return func(yield func(*worker) bool) {
		for _, w := range r.leased {
			if !yield(w) {
				return
			}
		}
		for _, w := range r.static {
			if !yield(w) {
				return
			}
		}
	}
}
