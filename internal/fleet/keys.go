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
type keySet[T any] struct {
	effective uint64         // the key whose value is what counts; 0: none
	others    *[]keyValue[T] // nil nearly always
}

type keyValue[T any] struct {
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
func (k *keySet[T]) get(key uint64, current T) (T, bool) {
	if key == k.effective {
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
func (k *keySet[T]) put(key uint64, value, current T, more func(a, b T) int) (T, bool) {
	if k.others == nil && (k.effective == 0 || k.effective == key) {
		k.effective = key
		return value, true
	}
	all := slices.DeleteFunc(k.entries(current), func(e keyValue[T]) bool { return e.key == key })
	if len(all) >= maxKeys {
		return current, false
	}
	return k.choose(append(all, keyValue[T]{key, value}), more), true
}

// keep forgets the keys that are gone, and returns the value that counts from now on. It
// reports false if none is left.
func (k *keySet[T]) retain(keeps func(key uint64) bool, current T, more func(a, b T) int) (T, bool) {
	if k.others == nil && keeps(k.effective) {
		return current, true
	}
	all := slices.DeleteFunc(k.entries(current), func(e keyValue[T]) bool { return !keeps(e.key) })
	if len(all) == 0 {
		*k = keySet[T]{}
		return current, false
	}
	return k.choose(all, more), true
}

func (k *keySet[T]) entries(current T) []keyValue[T] {
	all := []keyValue[T]{{k.effective, current}}
	if k.others != nil {
		all = append(all, *k.others...)
	}
	return all
}

// set notes all keys, and returns the value that counts: the one that says more, else
// that of the greater key, so that no order in which they come makes a difference.
func (k *keySet[T]) choose(all []keyValue[T], more func(a, b T) int) T {
	best := slices.MaxFunc(all, func(a, b keyValue[T]) int { return cmp.Or(more(a.value, b.value), cmp.Compare(a.key, b.key)) })
	k.effective, k.others = best.key, nil
	if len(all) > 1 {
		others := slices.DeleteFunc(all, func(e keyValue[T]) bool { return e.key == best.key })
		k.others = &others
	}
	return best.value
}
