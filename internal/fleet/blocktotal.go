package fleet

// placeholderTotal is the KVTotal that Dynamo reports for a data parallel rank as long as it
// does not know the real one. It never learns the real one of a vLLM worker's ranks, except the
// last (ai-dynamo/dynamo#12163).
const placeholderTotal = 1

// blockTotal is what is known about the real KVTotal of ranks that report placeholderTotal.
type blockTotal struct {
	perRank    Opt[uint64] // KVTotal of each rank; absent if unknown, or if ranks disagree
	distrusted bool        // a reported placeholderTotal is not the real total
}

// blockTotalOf returns the blockTotal of a worker with these ranks. The model card's total takes
// precedence. Without it, the total is the one on which all ranks that report a real one agree.
func blockTotalOf(ranks []rank, card Card) (known blockTotal) {
	if card.KVTotal.V > placeholderTotal {
		return blockTotal{card.KVTotal, true}
	}
	agree := true
	consider := func(l *Load) {
		switch total := l.KVTotal; {
		case total.V <= placeholderTotal:
			known.distrusted = known.distrusted || l.contradicts(l.CacheUsage)
		case known.perRank.OK && known.perRank != total:
			agree = false
		default:
			known.perRank, known.distrusted = total, true
		}
	}
	for i := range ranks {
		consider(&ranks[i].load.V)
		if s := ranks[i].scraped; s != nil {
			consider(&s.load)
		}
	}
	if !agree {
		known.perRank = Opt[uint64]{}
	}
	return known
}

// contradicts reports whether a total of a single block is impossible, because more blocks are
// in use, or because the usage is neither 0 nor 1.
func (l *Load) contradicts(usage Opt[float64]) bool {
	return l.KVTotal == Some[uint64](placeholderTotal) && (l.KVActive.V > placeholderTotal || usage.V > 0 && usage.V < 1)
}

// withBlockTotal replaces a placeholderTotal that is impossible or distrusted with what is
// known of the worker, and computes the blocks in use from the load's own usage. The argument
// usage may be from another source. It only shows whether the total is impossible.
func (l Load) withBlockTotal(known blockTotal, usage Opt[float64]) Load {
	if l.KVTotal != Some[uint64](placeholderTotal) || !known.distrusted && !l.contradicts(usage) {
		return l
	}
	l.KVTotal = known.perRank
	if l.CacheUsage.V > 0 && l.KVActive.V <= placeholderTotal {
		l.KVActive = l.blocksOf(l.CacheUsage)
	}
	return l
}
