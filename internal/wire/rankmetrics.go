package wire

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"

	dto "github.com/prometheus/client_model/go"
)

// place is whose values they are.
type rankID struct {
	namespace string
	endpoint  fleet.Endpoint
	worker    fleet.Opt[uint64]
	rank      uint32
}

// found is what was found of one place.
type rankValues struct {
	values [quantityCount]measurement

	// Before an engine tells Dynamo anything, Dynamo's own values are all 0.
	zeroTotalBlocks, positiveTotalBlocks bool // a sample of its own says that there are none, or some
}

// measured is what a page says of one quantity.
type measurement struct {
	fleet.Opt[float64]
	family int                // which one of pageFamilies says it
	shard  engineShard        // of which part it is
	counts map[string]float64 // of a counter: by the labels that are not read
}

// shard is which part of a rank's engine a sample is of, in SGLang. Each may report, and
// what they report is of the rank.
type engineShard [3]int

// valuesOf is what the families say, and how many of their values cannot be.
func rankMetrics(families map[string]*dto.MetricFamily) (values []WorkerMetrics, invalid int) {
	all := make(map[rankID]*rankValues)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, m := range families[name].Metric {
			at, part, ok := parseLabels(m)
			if !ok {
				continue
			}
			if all[at] == nil {
				all[at] = new(rankValues)
			}
			if !all[at].add(familyIndex[name], part, m) {
				invalid++
			}
		}
	}
	for at, f := range all {
		values = append(values, WorkerMetrics{at.namespace, at.worker, f.scraped(at)})
	}
	slices.SortFunc(values, func(a, b WorkerMetrics) int {
		return cmp.Or(
			strings.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Worker.V, b.Worker.V), strings.Compare(a.Component, b.Component),
			strings.Compare(a.Name, b.Name), cmp.Compare(a.Rank, b.Rank),
		)
	})
	return values, invalid
}

// locate reads a sample's labels. It reports false for one that says nothing of a rank, or
// not of the whole of it.
func parseLabels(m *dto.Metric) (at rankID, part engineShard, ok bool) {
	var rank, engine string
	for _, l := range m.Label {
		switch v := l.GetValue(); l.GetName() {
		case "dynamo_namespace":
			at.namespace = v
		case "dynamo_component":
			at.endpoint.Component = v
		case "dynamo_endpoint":
			at.endpoint.Name = v
		case "worker_id":
			id, ok := parseHexID(v)
			if !ok {
				return rankID{}, engineShard{}, false
			}
			at.worker = fleet.Some(id)
		case "dp_rank":
			rank = v
		case "engine": // vLLM's word for it
			engine = v
		case "pp_rank":
			part[0] = shardNumber(v)
		case "tp_rank":
			part[1] = shardNumber(v)
		case "moe_ep_rank":
			part[2] = shardNumber(v)
		case "priority": // of SGLang's requests; without one: of all
			if v != "" {
				return rankID{}, engineShard{}, false
			}
		}
	}
	if text := cmp.Or(rank, engine); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return rankID{}, engineShard{}, false
		}
		at.rank = uint32(n)
	}
	return at, part, true
}

// number is a small one, or the largest for what is none.
func shardNumber(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return math.MaxInt
	}
	return int(n)
}

// unreadLabels are the labels that tell samples of one counter apart, and that
// nothing else is known by: pid, with which Python's client library tells processes apart.
func otherLabels(m *dto.Metric) string {
	var unread []string
	for _, l := range m.Label {
		switch l.GetName() {
		case "dynamo_namespace", "dynamo_component", "dynamo_endpoint", "worker_id", "dp_rank", "engine", "pp_rank", "tp_rank", "moe_ep_rank", "priority":
		default:
			unread = append(unread, l.GetName()+strconv.Quote(l.GetValue()))
		}
	}
	slices.Sort(unread) // they may stand in any order
	return strings.Join(unread, "")
}

// take takes the value of a sample, unless there is a better one. It reports false for one
// that cannot be.
func (f *rankValues) add(family int, part engineShard, m *dto.Metric) bool {
	q, own := metricFamilies[family].quantity, isDynamoFamily(family)
	v, invalid := validateValue(q, m.GetUntyped().GetValue())
	if !v.OK {
		return !invalid
	}
	if q == totalBlocks {
		f.zeroTotalBlocks, f.positiveTotalBlocks = f.zeroTotalBlocks || own && v.V == 0, f.positiveTotalBlocks || own && v.V > 0
		if v.V == 0 {
			return true
		}
	}
	is := &f.values[q]
	switch worse := cmp.Or(cmp.Compare(family, is.family), slices.Compare(part[:], is.shard[:])); {
	case !is.OK || worse < 0:
		*is = measurement{Opt: fleet.Some(0.0), family: family, shard: part}
	case worse > 0:
		return true
	}
	// Of samples that differ in labels alone that are not read the largest counts: processes that do
	// not know the value say 0. Counters are of each of the processes.
	if q.isCounter() {
		is.addCounter(otherLabels(m), v.V)
	} else {
		is.V = max(is.V, v.V)
	}
	return true
}

// count counts one of a counter's samples; the same one may come twice.
func (m *measurement) addCounter(labels string, v float64) {
	if m.counts == nil {
		m.counts = make(map[string]float64)
	}
	if before := m.counts[labels]; v > before {
		m.counts[labels] = v
		m.V += v - before
	}
}

// isDynamos reports whether a family is Dynamo's own, and not of the engine.
func isDynamoFamily(family int) bool {
	return strings.HasPrefix(metricFamilies[family].name, dynamoPrefix)
}

// checked is a value of a quantity, absent if it is not known. It may be wrong, too.
func validateValue(q quantity, v float64) (value fleet.Opt[float64], invalid bool) {
	switch {
	case q.isFraction():
		return fleet.Fraction(v)
	case v >= 0 && v < countLimit:
		return fleet.Some(v), false
	}
	return fleet.Opt[float64]{}, !math.IsNaN(v)
}

// maxCount is above every count that is read of a page: those have the precision of a float64.
const countLimit = 1 << 63

// scraped are the values as the Fleet knows them.
func (f *rankValues) scraped(at rankID) fleet.ScrapedValues {
	if f.zeroTotalBlocks && !f.positiveTotalBlocks {
		for q := range f.values {
			if is := &f.values[q]; quantity(q) != inflightRequests && isDynamoFamily(is.family) {
				*is = measurement{}
			}
		}
	}
	count := func(q quantity) fleet.Opt[uint64] {
		is := &f.values[q]
		return fleet.Opt[uint64]{V: uint64(min(math.Round(is.V), countLimit)), OK: is.OK}
	}
	queues := fleet.Queues{Bootstrap: count(bootstrapQueue), Inflight: count(prefillInflightQueue), Prealloc: count(preallocQueue), Transfer: count(transferQueue)}
	return fleet.ScrapedValues{
		Endpoint: at.endpoint,
		Rank:     at.rank,
		Load: fleet.Load{
			ActiveSlots: count(runningRequests), TotalSlots: count(requestSlots), Waiting: sumCounts(count(waitingRequests), queues.Bootstrap, queues.Prealloc, queues.Transfer),
			KVActive: count(usedBlocks), KVTotal: count(totalBlocks), CacheUsage: f.values[cacheUsage].Opt, HitRate: f.values[cacheHitRate].Opt,
		},
		Inflight: count(inflightRequests), Lookups: count(prefixLookups), Hits: count(prefixHits),
		Queues: queues,
	}
}

// sum is the sum of those that are there. None is larger than maxCount.
func sumCounts(counts ...fleet.Opt[uint64]) (all fleet.Opt[uint64]) {
	for _, c := range counts {
		all.OK = all.OK || c.OK
		all.V = min(all.V+c.V, countLimit)
	}
	return all
}
