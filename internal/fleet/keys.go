package fleet

import (
	"cmp"
	"slices"
)

// maxKeys bounds the keys of the registry that have one attachment. Etcd has three
// layouts of them; in Kubernetes resources of any name may have it.
const maxKeys = 16

// keyring is the keys of the registry that say the same: that one worker is registered at
// one endpoint, or its model card there. While there is one left, it is. Of each key a
// hash is kept: there are many, and some are long.
type keyring[T any] struct {
	counts uint64      // the key whose value is what counts; 0: none
	others *[]keyed[T] // nil nearly always
}

type keyed[T any] struct {
	key   uint64
	value T
}

// hashOf is FNV-1a of a key, and never 0. It is the same in every process, so that leader
// and standby choose alike.
func hashOf(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return max(1, h)
}

// of is the value of a key, where current is the one that counts.
func (k *keyring[T]) of(key uint64, current T) (T, bool) {
	if key == k.counts {
		return current, true
	}
	if k.others != nil {
		for _, o := range *k.others {
			if o.key == key {
				return o.value, true
			}
		}
	}
	return current, false
}

// put notes the value of a key, and returns the one that counts from now on. It reports
// false if there are too many keys.
func (k *keyring[T]) put(key uint64, value, current T, more func(a, b T) int) (T, bool) {
	if k.others == nil && (k.counts == 0 || k.counts == key) {
		k.counts = key
		return value, true
	}
	all := slices.DeleteFunc(k.all(current), func(e keyed[T]) bool { return e.key == key })
	if len(all) >= maxKeys {
		return current, false
	}
	return k.set(append(all, keyed[T]{key, value}), more), true
}

// keep forgets the keys that are gone, and returns the value that counts from now on. It
// reports false if none is left.
func (k *keyring[T]) keep(stays func(key uint64) bool, current T, more func(a, b T) int) (T, bool) {
	if k.others == nil && stays(k.counts) {
		return current, true
	}
	all := slices.DeleteFunc(k.all(current), func(e keyed[T]) bool { return !stays(e.key) })
	if len(all) == 0 {
		*k = keyring[T]{}
		return current, false
	}
	return k.set(all, more), true
}

func (k *keyring[T]) all(current T) []keyed[T] {
	all := []keyed[T]{{k.counts, current}}
	if k.others != nil {
		all = append(all, *k.others...)
	}
	return all
}

// set notes all keys, and returns the value that counts: the one that says more, else
// that of the greater key, so that no order in which they come makes a difference.
func (k *keyring[T]) set(all []keyed[T], more func(a, b T) int) T {
	best := slices.MaxFunc(all, func(a, b keyed[T]) int { return cmp.Or(more(a.value, b.value), cmp.Compare(a.key, b.key)) })
	k.counts, k.others = best.key, nil
	if len(all) > 1 {
		others := slices.DeleteFunc(all, func(e keyed[T]) bool { return e.key == best.key })
		k.others = &others
	}
	return best.value
}
