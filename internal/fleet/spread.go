package fleet

import "math"

// Spread is the distribution of some values. It is the one definition of mean, standard
// deviation and imbalance for all outputs. The zero Spread has no values.
type Spread struct {
	N         int // number of values
	Mean, Std float64
	Min, Max  float64
}

// spreadOf returns the spread of the values that rows show.
func spreadOf(rows []WorkerState, shown func(*WorkerState) Opt[float64]) (s Spread) {
	var sum, squares float64
	for i := range rows {
		v := shown(&rows[i])
		if !v.OK {
			continue
		}
		if s.N == 0 {
			s.Min, s.Max = v.V, v.V
		}
		s.N++
		sum += v.V
		s.Min, s.Max = min(s.Min, v.V), max(s.Max, v.V)
	}
	if s.N == 0 {
		return s
	}
	s.Mean = sum / float64(s.N)
	for i := range rows {
		if v := shown(&rows[i]); v.OK {
			squares += (v.V - s.Mean) * (v.V - s.Mean)
		}
	}
	s.Std = math.Sqrt(squares / float64(s.N)) // of the population
	return s
}

// Merge adds the values of another Spread.
func (s *Spread) Merge(o Spread) {
	if o.N == 0 {
		return
	}
	if s.N == 0 {
		*s = o
		return
	}
	a, b := float64(s.N), float64(o.N)
	n, d := a+b, o.Mean-s.Mean
	s.Std = math.Sqrt((s.Std*s.Std*a + o.Std*o.Std*b + d*d*a*b/n) / n)
	s.Mean += d * b / n
	s.Min, s.Max, s.N = min(s.Min, o.Min), max(s.Max, o.Max), s.N+o.N
}

// Opt returns one of the fields of s. It is absent if s has no values.
func (s *Spread) Opt(field float64) Opt[float64] { return Opt[float64]{V: field, OK: s.N > 0} }

// Imbalance returns Max divided by Mean. It is absent if the mean is 0. The imbalance of an
// endpoint is that of its blocks in use.
func (s *Spread) Imbalance() Opt[float64] {
	if s.Mean == 0 {
		return Opt[float64]{}
	}
	return Some(s.Max / s.Mean)
}

// shownBlocks returns the blocks in use, if the row shows them.
func shownBlocks(w *WorkerState) Opt[float64] {
	return Opt[float64]{V: float64(w.Load.V.KVActive.V), OK: w.ShowsBlocks()}
}

// cacheUsage returns the usage of the row's KV cache.
func cacheUsage(w *WorkerState) Opt[float64] { return w.Load.V.CacheUsage }
