package fleet

// unseeded is the number of KV cache blocks that Dynamo tells of a data parallel rank that it
// was told nothing of: all of a vLLM worker's but the last, for life (ai-dynamo/dynamo#12163).
const unseeded = 1

// seeding is what is known of a worker whose ranks say that they have a single block.
type seeding struct {
	total   Opt[uint64] // how many each has; absent where nothing says so, or ranks disagree
	doubted bool        // no rank's single block is believed
}

// seedingOf is that of a worker of these ranks: as its model card says, or all of the ranks
// that know it do.
func seedingOf(ranks []rank, card Card) (by seeding) {
	if card.KVTotal.V > unseeded {
		return seeding{card.KVTotal, true}
	}
	agree := true
	note := func(l *Load) {
		switch total := l.KVTotal; {
		case total.V <= unseeded:
			by.doubted = by.doubted || l.contradicts(l.CacheUsage)
		case by.total.OK && by.total != total:
			agree = false
		default:
			by.total, by.doubted = total, true
		}
	}
	for i := range ranks {
		note(&ranks[i].load.V)
		if c := ranks[i].scraped; c != nil {
			note(&c.load)
		}
	}
	if !agree {
		by.total = Opt[uint64]{}
	}
	return by
}

// contradicts reports whether the load says that there is a single block, while more are in
// use, or a part of it is.
func (l *Load) contradicts(usage Opt[float64]) bool {
	return l.KVTotal == Some[uint64](unseeded) && (l.KVActive.V > unseeded || usage.V > 0 && usage.V < 1)
}

// seeded is the load without a total of a single block that cannot be, or that is doubted.
// What is known of the worker counts then, and what is in use of it follows from what the
// load says of its usage. Usage may be that of another source.
func (l Load) seeded(by seeding, usage Opt[float64]) Load {
	if l.KVTotal != Some[uint64](unseeded) || !by.doubted && !l.contradicts(usage) {
		return l
	}
	l.KVTotal = by.total
	if l.CacheUsage.V > 0 && l.KVActive.V <= unseeded {
		l.KVActive = l.blocks(l.CacheUsage)
	}
	return l
}
