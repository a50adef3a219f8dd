package garbage

import (
	"math/rand/v2"
	"slices"
)

// extremes are replacements for numbers and words.
var extremes = []string{"-1", "0", "18446744073709551615", "18446744073709551616", "9223372036854775808", "1e400", "-0.0", "NaN", "null", `"`, "{", "[", "\\u0000", "\xff", ""}

// Mutate returns one of the seeds with some of its bytes changed, doubled, cut out,
// replaced, or followed by those of another seed.
func Mutate(rng *rand.Rand, seeds [][]byte) []byte {
	b := slices.Clone(seeds[rng.IntN(len(seeds))])
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			return b
		}
		i := rng.IntN(len(b))
		j := i + rng.IntN(min(len(b)-i, 16)+1)
		switch rng.IntN(7) {
		case 0:
			b[i] ^= 1 << rng.IntN(8)
		case 1:
			b[i] = byte(rng.Uint32())
		case 2:
			b = slices.Delete(b, i, j)
		case 3:
			b = slices.Insert(b, i, b[i:j]...)
		case 4:
			b = b[:i]
		case 5:
			other := seeds[rng.IntN(len(seeds))]
			b = append(b[:i], other[min(i, len(other)):]...)
		case 6:
			i, j = numberAt(b, i)
			b = slices.Replace(b, i, j, []byte(extremes[rng.IntN(len(extremes))])...)
		}
	}
	return b
}

// numberAt returns the position of the first number in b that does not begin before i.
func numberAt(b []byte, i int) (from, to int) {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	for i < len(b) && !digit(b[i]) {
		i++
	}
	from = i
	for i < len(b) && digit(b[i]) {
		i++
	}
	return from, i
}
