package fleet

// unseeded is the number of KV cache blocks that Dynamo tells of a data parallel rank that it
// was told nothing of: all of a vLLM worker's but the last, for life (ai-dynamo/dynamo#12163).
const placeholderTotal = 1

// seeding is what is known of a worker whose ranks say that they have a single block.
type blockTotal struct {
	perRank    Opt[uint64] // how many each has; absent where nothing says so, or ranks disagree
	distrusted bool        // no rank's single block is believed
}

// seedingOf is that of a worker of these ranks: as its model card says, or all of the ranks
// that know it do.
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

// contradicts reports whether the load says that there is a single block, while more are in
// use, or a part of it is.
func (l *Load) contradicts(usage Opt[float64]) bool {
	return l.KVTotal == Some[uint64](placeholderTotal) && (l.KVActive.V > placeholderTotal || usage.V > 0 && usage.V < 1)
}

// seeded is the load without a total of a single block that cannot be, or that is doubted.
// What is known of the worker counts then, and what is in use of it follows from what the
// load says of its usage. Usage may be that of another source.
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
