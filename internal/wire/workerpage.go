package wire

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// quantity is what a family of a worker's own metrics page says.
type quantity int

const (
	running  quantity = iota // requests being served
	slots                    // requests that can be served at once
	waiting                  // requests in the engine's queue
	inflight                 // requests that the endpoint's handler has taken
	used                     // KV cache blocks in use
	blocks                   // KV cache blocks there are
	usage                    // fraction of the KV cache in use
	hitRate                  // fraction of the look-ups in the prefix cache that hit
	lookups                  // tokens looked up in the prefix cache since the engine began
	hits                     // those of them that hit
	quantities
)

// pageFamily is a family that is read. Its name is written with an underscore behind the
// engine's, and read with a colon, too: engines have written both.
type pageFamily struct {
	name string
	of   quantity
}

// pageFamilies are all that are read. Of those that say the same the first counts.
var pageFamilies = [...]pageFamily{
	// vLLM: vllm/v1/metrics/loggers.py, where the names with gpu_ are the older ones; the last
	// is of the engine before that, vllm/engine/metrics.py.
	{"vllm_num_requests_running", running},
	{"vllm_num_requests_waiting", waiting},
	{"vllm_kv_cache_usage_perc", usage},
	{"vllm_gpu_cache_usage_perc", usage},
	{"vllm_prefix_cache_queries_total", lookups},
	{"vllm_prefix_cache_hits_total", hits},
	{"vllm_gpu_prefix_cache_queries_total", lookups},
	{"vllm_gpu_prefix_cache_hits_total", hits},
	{"vllm_gpu_prefix_cache_hit_rate", hitRate},

	// SGLang: python/sglang/srt/observability/metrics_collector.py, before
	// python/sglang/srt/metrics/collector.py.
	{"sglang_num_running_reqs", running},
	{"sglang_num_queue_reqs", waiting},
	{"sglang_token_usage", usage},
	{"sglang_cache_hit_rate", hitRate},

	// TensorRT-LLM: tensorrt_llm/metrics/collector.py. The last two are of Dynamo's mock
	// engine alone: lib/llm/src/mocker/metrics.rs.
	{"trtllm_num_requests_running", running},
	{"trtllm_max_num_active_requests", slots},
	{"trtllm_num_requests_waiting", waiting},
	{"trtllm_kv_cache_used_blocks", used},
	{"trtllm_kv_cache_max_blocks", blocks},
	{"trtllm_kv_cache_utilization", usage},
	{"trtllm_kv_cache_hit_rate", hitRate},
	{"trtllm_kv_cache_usage_perc", usage},
	{"trtllm_gpu_cache_usage_perc", usage},

	// Dynamo: lib/runtime/src/metrics/prometheus_names.rs, those with kvstats_ to 0.8.
	{"dynamo_component_total_blocks", blocks},
	{"dynamo_component_gpu_cache_usage_percent", usage},
	{"dynamo_component_kv_cache_hit_rate", hitRate},
	{"dynamo_component_kvstats_active_blocks", used},
	{"dynamo_component_kvstats_total_blocks", blocks},
	{"dynamo_component_kvstats_gpu_cache_usage_percent", usage},
	{"dynamo_component_kvstats_gpu_prefix_cache_hit_rate", hitRate},
	{"dynamo_component_inflight_requests", inflight},
}

// dynamo begins the names of Dynamo's own families.
const dynamo = "dynamo_component_"

// pageNames has every spelling of the names in pageFamilies, and which of them it is.
var pageNames = func() map[string]int {
	all := make(map[string]int)
	for i, f := range pageFamilies {
		all[f.name] = i
		if engine, rest, _ := strings.Cut(f.name, "_"); engine != "dynamo" {
			all[engine+":"+rest] = i
		}
	}
	return all
}()

const (
	pageBuffer = 32 << 10  // a line that is longer is no sample of ours
	maxSamples = 512 << 10 // bytes of the samples that are read: more than any engine has
)

// ErrTooManySamples says that a page has more samples than any worker can have.
var ErrTooManySamples = errors.New("a metrics page with too many samples")

// PageValues are what a worker's page says of one rank at one endpoint.
type PageValues struct {
	Namespace string            // empty where the page does not say it
	Worker    fleet.Opt[uint64] // likewise
	fleet.Scraped
}

// PageReader reads workers' own metrics pages, one after the other. The zero PageReader is
// ready.
type PageReader struct {
	lines   *bufio.Reader
	samples bytes.Buffer
}

// Read reads a page: what it says of each rank at each endpoint, sorted. Pages are long,
// and put together from several registries, so that headers may come twice: only the
// samples that are of use go to the parser, and those untyped.
func (p *PageReader) Read(page io.Reader) ([]PageValues, error) {
	if p.lines == nil {
		p.lines = bufio.NewReaderSize(nil, pageBuffer)
	}
	p.lines.Reset(page)
	defer p.lines.Reset(nil)
	p.samples.Reset()
	if err := p.sift(); err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&p.samples)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPage, err)
	}
	return valuesOf(families), nil
}

// ErrPage says that a page is not in the Prometheus text format.
var ErrPage = errors.New("decode metrics page")

// sift takes the samples that are of use out of the page.
func (p *PageReader) sift() error {
	for {
		line, err := p.lines.ReadSlice('\n')
		if isSample(line) {
			if errors.Is(err, bufio.ErrBufferFull) {
				return fmt.Errorf("%w: a sample longer than %d bytes", ErrPage, pageBuffer)
			}
			p.samples.Write(line)
			if err != nil { // the last line may lack its end
				p.samples.WriteByte('\n')
			}
			if p.samples.Len() > maxSamples {
				return ErrTooManySamples
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = p.lines.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// isSample reports whether a line is a sample of a family that is read. A name ends where
// it cannot go on: the library reads a value directly behind it, too.
func isSample(line []byte) bool {
	line = bytes.TrimLeft(line, " \t")
	end := bytes.IndexFunc(line, notInMetricName)
	if end < 0 || line[end] == '\n' || line[end] == '\r' {
		return false
	}
	_, read := pageNames[string(line[:end])]
	return read
}

func notInMetricName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == ':')
}

// place is whose values they are.
type place struct {
	namespace string
	endpoint  fleet.Endpoint
	worker    fleet.Opt[uint64]
	rank      uint32
}

// found is what was found of one place.
type found struct {
	values  [quantities]fleet.Opt[float64]
	family  [quantities]int // which one of pageFamilies says it
	shard   [quantities]shard
	nothing bool // the engine has not told Dynamo anything yet
}

// shard is which part of a rank's engine a sample is of, in SGLang. Each may report, and
// what they report is of the rank.
type shard [3]int

func valuesOf(families map[string]*dto.MetricFamily) []PageValues {
	all := make(map[place]*found)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, m := range families[name].Metric {
			at, part, ok := locate(m)
			if !ok {
				continue
			}
			if all[at] == nil {
				all[at] = new(found)
			}
			all[at].take(pageNames[name], part, m.GetUntyped().GetValue())
		}
	}
	values := make([]PageValues, 0, len(all))
	for at, f := range all {
		values = append(values, PageValues{at.namespace, at.worker, f.scraped(at)})
	}
	slices.SortFunc(values, func(a, b PageValues) int {
		return cmp.Or(
			strings.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Worker.V, b.Worker.V), strings.Compare(a.Component, b.Component),
			strings.Compare(a.Name, b.Name), cmp.Compare(a.Rank, b.Rank),
		)
	})
	return values
}

// locate reads a sample's labels. It reports false for one that says nothing of a rank, or
// not of the whole of it.
func locate(m *dto.Metric) (at place, part shard, ok bool) {
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
				return place{}, shard{}, false
			}
			at.worker = fleet.Some(id)
		case "dp_rank":
			rank = v
		case "engine": // vLLM's word for it
			engine = v
		case "pp_rank":
			part[0] = number(v)
		case "tp_rank":
			part[1] = number(v)
		case "moe_ep_rank":
			part[2] = number(v)
		case "priority": // of SGLang's requests; without one: of all
			if v != "" {
				return place{}, shard{}, false
			}
		}
	}
	if text := cmp.Or(rank, engine); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return place{}, shard{}, false
		}
		at.rank = uint32(n)
	}
	return at, part, true
}

// number is a small one, or the largest for what is none.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return math.MaxInt
	}
	return int(n)
}

// take takes a value, unless there is a better one. Before an engine tells Dynamo
// anything, Dynamo's own values are all 0: nothing is known then.
func (f *found) take(family int, part shard, v float64) {
	of := pageFamilies[family].of
	own := strings.HasPrefix(pageFamilies[family].name, dynamo)
	if of == blocks && v == 0 {
		f.nothing = f.nothing || own
		return
	}
	better := cmp.Or(cmp.Compare(f.family[of], family), slices.Compare(f.shard[of][:], part[:])) > 0
	if valid(of, v) && (!f.values[of].OK || better) {
		f.values[of], f.family[of], f.shard[of] = fleet.Some(v), family, part
	}
}

// valid reports whether a value can be one of the quantity.
func valid(of quantity, v float64) bool {
	if of == usage || of == hitRate {
		return v >= 0 && v <= 1
	}
	return v >= 0 && v < 1<<63
}

// scraped are the values as the Fleet knows them.
func (f *found) scraped(at place) fleet.Scraped {
	if f.nothing {
		for of, family := range f.family {
			if q := quantity(of); q != inflight && strings.HasPrefix(pageFamilies[family].name, dynamo) {
				f.values[of] = fleet.Opt[float64]{}
			}
		}
	}
	count := func(of quantity) fleet.Opt[uint64] {
		return fleet.Opt[uint64]{V: uint64(math.Round(f.values[of].V)), OK: f.values[of].OK}
	}
	return fleet.Scraped{
		Endpoint: at.endpoint,
		Rank:     at.rank,
		Load: fleet.Load{
			ActiveSlots: count(running), TotalSlots: count(slots), Waiting: count(waiting),
			KVActive: count(used), KVTotal: count(blocks), CacheUsage: f.values[usage], HitRate: f.values[hitRate],
		},
		Inflight: count(inflight), Lookups: count(lookups), Hits: count(hits),
	}
}
