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

// rankID identifies the rank of a worker at an endpoint that samples belong to.
type rankID struct {
	namespace string
	endpoint  fleet.Endpoint
	worker    fleet.Opt[uint64]
	rank      uint32
}

// rankValues collects the values of one rank.
type rankValues struct {
	values [quantityCount]measurement

	// Dynamo's own values are all 0 until the engine reports to Dynamo. These fields say
	// whether a sample of Dynamo's reports no blocks, or some.
	zeroTotalBlocks, positiveTotalBlocks bool
}

// measurement is the value of one quantity.
type measurement struct {
	fleet.Opt[float64]
	family int                // index in metricFamilies
	shard  engineShard        // that reported it
	counts map[string]float64 // of a counter: the value by otherLabels
}

// engineShard is the pipeline, tensor and expert parallel rank within an SGLang engine.
// Each shard may report, and each reports the values of the whole data parallel rank.
type engineShard [3]int

// rankMetrics returns the metrics of each rank, sorted, and how many values are invalid.
func rankMetrics(families map[string]*dto.MetricFamily) (values []WorkerMetrics, invalid int) {
	all := make(map[rankID]*rankValues)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, m := range families[name].Metric {
			id, shard, ok := parseLabels(m)
			if !ok {
				continue
			}
			if all[id] == nil {
				all[id] = new(rankValues)
			}
			if !all[id].add(familyIndex[name], shard, m) {
				invalid++
			}
		}
	}
	for id, r := range all {
		values = append(values, WorkerMetrics{id.namespace, id.worker, r.scraped(id)})
	}
	slices.SortFunc(values, func(a, b WorkerMetrics) int {
		return cmp.Or(
			strings.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Worker.V, b.Worker.V), strings.Compare(a.Component, b.Component),
			strings.Compare(a.Name, b.Name), cmp.Compare(a.Rank, b.Rank),
		)
	})
	return values, invalid
}

// parseLabels reads a sample's labels. It reports false for a sample that does not belong
// to a rank, or covers only a part of one.
func parseLabels(m *dto.Metric) (id rankID, shard engineShard, ok bool) {
	var rank, engine string
	for _, l := range m.Label {
		switch v := l.GetValue(); l.GetName() {
		case "dynamo_namespace":
			id.namespace = v
		case "dynamo_component":
			id.endpoint.Component = v
		case "dynamo_endpoint":
			id.endpoint.Name = v
		case "worker_id":
			worker, ok := parseHexID(v)
			if !ok {
				return rankID{}, engineShard{}, false
			}
			id.worker = fleet.Some(worker)
		case "dp_rank":
			rank = v
		case "engine": // vLLM's label for the data parallel rank
			engine = v
		case "pp_rank":
			shard[0] = shardNumber(v)
		case "tp_rank":
			shard[1] = shardNumber(v)
		case "moe_ep_rank":
			shard[2] = shardNumber(v)
		case "priority": // SGLang: a sample with a priority covers only the requests of that priority
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
		id.rank = uint32(n)
	}
	return id, shard, true
}

// shardNumber parses a number below 2^31. It returns the largest int for other text, so
// that such a shard comes last.
func shardNumber(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return math.MaxInt
	}
	return int(n)
}

// otherLabels returns the labels that parseLabels does not read, as one string. Samples of one
// counter may differ in these labels only, because Python's client library adds a pid per process.
func otherLabels(m *dto.Metric) string {
	var others []string
	for _, l := range m.Label {
		switch l.GetName() {
		case "dynamo_namespace", "dynamo_component", "dynamo_endpoint", "worker_id", "dp_rank", "engine", "pp_rank", "tp_rank", "moe_ep_rank", "priority":
		default:
			others = append(others, l.GetName()+strconv.Quote(l.GetValue()))
		}
	}
	slices.Sort(others) // labels may come in any order
	return strings.Join(others, "")
}

// add adds the value of a sample, unless a sample that takes precedence was added before.
// It reports false for an invalid value.
func (r *rankValues) add(family int, shard engineShard, m *dto.Metric) bool {
	q, isDynamos := metricFamilies[family].quantity, isDynamoFamily(family)
	v, invalid := validateValue(q, m.GetUntyped().GetValue())
	if !v.OK {
		return !invalid
	}
	if q == totalBlocks {
		r.zeroTotalBlocks = r.zeroTotalBlocks || isDynamos && v.V == 0
		r.positiveTotalBlocks = r.positiveTotalBlocks || isDynamos && v.V > 0
		if v.V == 0 {
			return true
		}
	}
	current := &r.values[q]
	switch order := cmp.Or(cmp.Compare(family, current.family), slices.Compare(shard[:], current.shard[:])); {
	case !current.OK || order < 0:
		*current = measurement{Opt: fleet.Some(0.0), family: family, shard: shard}
	case order > 0:
		return true
	}
	// Several processes may each report a sample. Of gauges the largest counts, because
	// processes that do not know the value report 0. Counters are summed.
	if q.isCounter() {
		current.addCounter(otherLabels(m), v.V)
	} else {
		current.V = max(current.V, v.V)
	}
	return true
}

// addCounter adds one of a counter's samples. A sample that appears twice is counted once.
func (m *measurement) addCounter(labels string, v float64) {
	if m.counts == nil {
		m.counts = make(map[string]float64)
	}
	if before := m.counts[labels]; v > before {
		m.counts[labels] = v
		m.V += v - before
	}
}

// isDynamoFamily reports whether a family is Dynamo's own, and not the engine's.
func isDynamoFamily(family int) bool {
	return strings.HasPrefix(metricFamilies[family].name, dynamoPrefix)
}

// validateValue returns a value of a quantity. The result is absent if the value is unknown
// or invalid; NaN is unknown.
func validateValue(q quantity, v float64) (value fleet.Opt[float64], invalid bool) {
	switch {
	case q.isFraction():
		return fleet.Fraction(v)
	case v >= 0 && v < countLimit:
		return fleet.Some(v), false
	}
	return fleet.Opt[float64]{}, !math.IsNaN(v)
}

// countLimit is above every valid count. Counts in metrics have the precision of a float64.
const countLimit = 1 << 63

// scraped returns the values in the form of package fleet.
func (r *rankValues) scraped(id rankID) fleet.ScrapedValues {
	if r.zeroTotalBlocks && !r.positiveTotalBlocks {
		for q := range r.values {
			if v := &r.values[q]; quantity(q) != inflightRequests && isDynamoFamily(v.family) {
				*v = measurement{}
			}
		}
	}
	count := func(q quantity) fleet.Opt[uint64] {
		v := &r.values[q]
		return fleet.Opt[uint64]{V: uint64(min(math.Round(v.V), countLimit)), OK: v.OK}
	}
	queues := fleet.Queues{Bootstrap: count(bootstrapQueue), Inflight: count(prefillInflightQueue), Prealloc: count(preallocQueue), Transfer: count(transferQueue)}
	return fleet.ScrapedValues{
		Endpoint: id.endpoint,
		Rank:     id.rank,
		Load: fleet.Load{
			ActiveSlots: count(runningRequests), TotalSlots: count(requestSlots), Waiting: sumCounts(count(waitingRequests), queues.Bootstrap, queues.Prealloc, queues.Transfer),
			KVActive: count(usedBlocks), KVTotal: count(totalBlocks), CacheUsage: r.values[cacheUsage].Opt, HitRate: r.values[cacheHitRate].Opt,
		},
		Inflight: count(inflightRequests), Lookups: count(prefixLookups), Hits: count(prefixHits),
		Queues: queues,
	}
}

// sumCounts returns the sum of the counts that are present. No count is above countLimit.
func sumCounts(counts ...fleet.Opt[uint64]) (all fleet.Opt[uint64]) {
	for _, c := range counts {
		all.OK = all.OK || c.OK
		all.V = min(all.V+c.V, countLimit)
	}
	return all
}
