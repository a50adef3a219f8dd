package fleet

import (
	"cmp"
	"slices"
)

// maxKeys is the largest number of keys of one registration or model card. In etcd there are
// three layouts of keys. In Kubernetes, resources of any name may hold the same registration.
const maxKeys = 16

// keySet has the keys of the registry that hold the registration, or the model card, of one
// worker at one endpoint. The registration or card lives until the last of them is deleted. Only
// a hash of each key is stored, because there are many keys, and some are long.
type keySet[T any] struct {
	effective uint64         // the key whose value counts; 0 if there is no key
	others    *[]keyValue[T] // usually nil
}

type keyValue[T any] struct {
	key   uint64
	value T
}

// hashOf returns the FNV-1a hash of a key, and never 0. It is the same in every process, so
// that leader and standby choose the same key.
func hashOf(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return max(1, h)
}

// get returns the value of a key. Current is the value that counts.
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

// put stores the value of a key, and returns the value that counts from now on. It returns
// false if there are too many keys.
func (k *keySet[T]) put(key uint64, value, current T, compare func(a, b T) int) (T, bool) {
	if k.others == nil && (k.effective == 0 || k.effective == key) {
		k.effective = key
		return value, true
	}
	all := slices.DeleteFunc(k.entries(current), func(e keyValue[T]) bool { return e.key == key })
	if len(all) >= maxKeys {
		return current, false
	}
	return k.choose(append(all, keyValue[T]{key, value}), compare), true
}

// retain keeps only the accepted keys, and returns the value that counts from now on. It
// returns false if no key is left.
func (k *keySet[T]) retain(keeps func(key uint64) bool, current T, compare func(a, b T) int) (T, bool) {
	if k.others == nil && keeps(k.effective) {
		return current, true
	}
	all := slices.DeleteFunc(k.entries(current), func(e keyValue[T]) bool { return !keeps(e.key) })
	if len(all) == 0 {
		*k = keySet[T]{}
		return current, false
	}
	return k.choose(all, compare), true
}

func (k *keySet[T]) entries(current T) []keyValue[T] {
	all := []keyValue[T]{{k.effective, current}}
	if k.others != nil {
		all = append(all, *k.others...)
	}
	return all
}

// choose stores all keys, and returns the value that counts. This is the greatest one. Among
// equals it is the one whose key has the greatest hash, so that the order of arrival does not
// matter.
func (k *keySet[T]) choose(all []keyValue[T], compare func(a, b T) int) T {
	best := slices.MaxFunc(all, func(a, b keyValue[T]) int { return cmp.Or(compare(a.value, b.value), cmp.Compare(a.key, b.key)) })
	k.effective, k.others = best.key, nil
	if len(all) > 1 {
		others := slices.DeleteFunc(all, func(e keyValue[T]) bool { return e.key == best.key })
		k.others = &others
	}
	return best.value
}
