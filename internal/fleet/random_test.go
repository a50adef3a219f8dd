package fleet

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// TestRandomPollsKeepInvariants applies random changes to several Fleets, and checks the
// invariants after each change. It compares what the Fleet shows with a simple model.
func TestRandomPollsKeepInvariants(t *testing.T) {
	targets := []Target{everything, backend, Target(generate), Target(loadMetrics), {Component: "prefill"}}
	for seed := range uint64(20) {
		target := targets[seed%uint64(len(targets))]
		registry := seed%4 != 3
		limit := largeLimit
		if seed%2 == 0 {
			limit = int(1 + seed) // the model does not know the limit
		}
		t.Run(fmt.Sprintf("seed %d, %s, limit %d, registry %v", seed, Endpoint(target), limit, registry), func(t *testing.T) {
			f := New(target, limit, registry)
			f.Advance(start)
			h := &history{
				rand: rand.New(rand.NewPCG(seed, 0)), f: f, now: start, registry: registry, endpoints: testEndpoints,
				keys: make(map[Instance]map[string]bool), replies: make(map[workerAt]*lastReply), hits: make(map[string]uint64),
			}
			for range 1000 {
				what := h.step()
				checkInvariants(t, f)
				if what == "advance" {
					checkExpiry(t, f)
				}
				if limit == largeLimit {
					h.compare(t, what)
				}
			}
			h.emptyOut(t)
		})
	}
}

// TestRandomEventsKeepInvariants checks the invariants after random changes that include events,
// cards and scrapes. It does not compare with the model, which knows none of these.
func TestRandomEventsKeepInvariants(t *testing.T) {
	for seed := range uint64(15) {
		limit := largeLimit
		if seed%2 == 0 {
			limit = int(1 + seed)
		}
		f := New([]Target{everything, backend, Target(generate), {Namespace: "lab*"}, {Namespace: "lab*", Component: "backend", Name: "generate"}}[seed%5], limit, seed%4 != 3)
		if seed%3 == 0 { // every limit is reached
			f.workerLimit = 5
			f.bounds = bounds{unregisteredWorkers: 4, staticWorkers: 2, endpoints: 4, emptyEndpoints: 2, unregisteredEndpoints: 2, attachments: 8, unregisteredAttachments: 4, extraRanks: 3, unregisteredRanks: 4}
		}
		f.Advance(start)
		h := &history{
			rand: rand.New(rand.NewPCG(seed, 1)), f: f, now: start, registry: seed%4 != 3, endpoints: append([]Endpoint{f.unknown}, testEndpoints...),
			keys: make(map[Instance]map[string]bool), replies: make(map[workerAt]*lastReply), hits: make(map[string]uint64),
		}
		for range 1000 {
			if h.rand.IntN(2) == 0 {
				h.step()
			} else {
				h.event()
			}
			checkInvariants(t, f)
		}
		h.emptyOut(t)
	}
}

// event makes one random change of the kinds that releases since 0.6 have.
func (h *history) event() {
	from := Origin{Endpoint: h.endpoint(), Worker: 1 + h.rand.Uint64N(14), Rank: uint32(h.rand.IntN(3))}
	switch h.rand.IntN(3) {
	case 0:
		from.Endpoint = Endpoint{}
	case 1:
		from.Name = ""
	}
	some := func() Opt[uint64] { return Opt[uint64]{h.rand.Uint64N(100), h.rand.IntN(4) > 0} }
	switch h.rand.IntN(9) {
	case 0:
		in := h.instance()
		h.f.Register(h.key(in), in, Registration{Publishes: true, Transport: []string{"", "a", "b"}[h.rand.IntN(3)]})
	case 1:
		in := h.instance()
		h.f.SetCard(h.key(in), in, Card{KVTotal: some(), MaxSeqs: some()})
	case 2:
		in := h.instance()
		h.f.DropCard(h.key(in), in)
	case 3, 4:
		h.f.RecordLoad(from, Source(1+h.rand.IntN(2)), Load{KVActive: some(), KVTotal: some(), ActiveSlots: some(), CacheUsage: Some(0.5)})
	case 5:
		h.f.RecordForwardPass(from, Pass{Counter: h.rand.Uint64N(10), Seconds: float64(h.rand.IntN(3)), Running: h.rand.Uint64N(9)})
	case 7:
		h.f.ExpireScraped(time.Duration(h.rand.IntN(800)) * time.Second)
	case 8:
		var values []ScrapedValues
		for range h.rand.IntN(4) {
			of := []Endpoint{h.endpoint(), {Component: "backend"}, {}}[h.rand.IntN(3)]
			values = append(values, ScrapedValues{Endpoint: of, Rank: uint32(h.rand.IntN(3)), Inflight: some(), Lookups: some(), Hits: some(),
				Load: Load{KVActive: some(), KVTotal: some(), Waiting: some(), CacheUsage: Some(0.5)}})
		}
		for _, p := range h.f.ScrapeTargets(h.rand.IntN(2) == 0) {
			if h.rand.IntN(3) == 0 {
				h.f.RecordScrape(p, values)
			}
		}
	case 6:
		h.f.RecordRequest(Request{Prefill: some(), Decode: some(), ISLBlocks: some(), OverlapBlocks: some(), FirstToken: Some(0.1), Duration: Some(1.0)})
	}
}

// workerAt is one worker at one endpoint.
type workerAt struct {
	Endpoint
	Worker WorkerID
}

// lastReply is the last reply of a worker for an endpoint, and its poll.
type lastReply struct {
	PollReply
	poll        uint64
	missedPolls int
}

// history makes random changes, and has the model of their effects.
type history struct {
	rand      *rand.Rand
	f         *Fleet
	now       time.Time
	registry  bool
	endpoints []Endpoint
	poll      uint64
	polling   bool

	keys    map[Instance]map[string]bool
	replies map[workerAt]*lastReply
	hits    map[string]uint64 // ISL blocks that are shown for each registered worker
}

var testEndpoints = []Endpoint{generate, generate2, loadMetrics, prefill, {Component: "prefill", Name: "load_metrics"}}

func (h *history) endpoint() Endpoint {
	e := h.endpoints[h.rand.IntN(len(h.endpoints))]
	if h.f.Target().MultipleNamespaces() {
		e.Namespace = []string{"lab-1", "lab-2"}[h.rand.IntN(2)]
	}
	return e
}

// key returns one of the keys that the registry may have for an instance.
func (h *history) key(in Instance) string {
	return []string{keyOf(in), fmt.Sprintf("instances/%s:%x", in.Endpoint, in.ID)}[h.rand.IntN(2)]
}

func (h *history) instance() Instance {
	return Instance{Endpoint: h.endpoint(), ID: 1 + h.rand.Uint64N(12)}
}

// step makes one random change and returns its description.
func (h *history) step() string {
	switch n := h.rand.IntN(100); {
	case n < 12 && h.registry:
		in := h.instance()
		key := h.key(in)
		h.f.Register(key, in, Registration{NATS: true})
		h.addKey(in, key)
		return "register " + key
	case n < 20:
		in := h.instance()
		key := h.key(in)
		h.f.Deregister(key, in)
		h.removeKey(in, key)
		return "deregister " + key
	case n < 22 && h.registry:
		return h.sync()
	case n < 55:
		return h.report()
	case n < 75:
		id := 1 + h.rand.Uint64N(20)
		h.f.RecordHit(id, h.rand.Uint64N(100), h.rand.Uint64N(100))
		return fmt.Sprint("hit ", id)
	case n < 85:
		h.f.BeginPoll()
		h.poll, h.polling = h.poll+1, true
		return "begin poll"
	case n < 95:
		return h.endPoll(h.rand.IntN(4) > 0)
	default:
		h.now = h.now.Add(time.Duration(1+h.rand.IntN(400)) * time.Second)
		h.f.Advance(h.now)
		return "advance"
	}
}

func (h *history) addKey(in Instance, key string) {
	if h.keys[in] == nil {
		h.keys[in] = make(map[string]bool)
	}
	h.keys[in][key] = true
}

func (h *history) removeKey(in Instance, key string) {
	if !h.keys[in][key] {
		return
	}
	if delete(h.keys[in], key); len(h.keys[in]) == 0 {
		delete(h.keys, in)
		delete(h.replies, workerAt{in.Endpoint, lease(in.ID)})
	}
}

func (h *history) sync() string {
	all := Listing{Instances: make(map[string]InstanceEntry)}
	before := h.keys
	h.keys = make(map[Instance]map[string]bool)
	for range h.rand.IntN(20) {
		in := h.instance()
		key := h.key(in)
		all.Instances[key] = InstanceEntry{in, Registration{NATS: true}}
		h.addKey(in, key)
	}
	for in := range before {
		if h.keys[in] == nil {
			delete(h.replies, workerAt{in.Endpoint, lease(in.ID)})
		}
	}
	h.f.Sync(all)
	return fmt.Sprint("sync ", all)
}

func (h *history) report() string {
	r := loaded(h.endpoint(), lease(1+h.rand.Uint64N(14)), h.rand.Uint64N(100))
	if h.rand.IntN(8) == 0 {
		r.Worker = static(string(rune('a' + h.rand.IntN(3))))
	}
	switch h.rand.IntN(6) {
	case 0:
		r.Outcome, r.Load = NoLoad, Load{}
	case 1:
		r.Outcome, r.Load = Malformed, Load{}
	}
	counts := h.f.endpoints[r.Endpoint] != nil || r.Worker.IsStatic() || !h.registry
	h.f.RecordPollReply(r)
	if h.f.Target().Covers(r.Endpoint) && counts {
		h.replies[workerAt{r.Endpoint, r.Worker}] = &lastReply{PollReply: r, poll: h.poll}
	}
	return fmt.Sprint("report ", r)
}

func (h *history) endPoll(counts bool) string {
	h.f.EndPoll(counts)
	h.polling = false
	for at, s := range h.replies {
		if !counts || s.poll == h.poll {
			continue
		}
		s.missedPolls++
		if s.missedPolls == 2 {
			delete(h.replies, at)
		}
	}
	return fmt.Sprint("end poll ", counts)
}

// compare compares a Snapshot with the model.
func (h *history) compare(t *testing.T, what string) {
	t.Helper()
	registered := make(map[Endpoint]bool)
	members := make(map[string]bool)
	for in := range h.keys {
		registered[in.Endpoint] = true
		members[lease(in.ID).String()] = true
	}
	want := make(map[workerAt]uint64)
	for at, s := range h.replies {
		seen := !h.registry || at.Worker.IsStatic() || h.keys[Instance{at.Endpoint, at.Worker.Lease}] != nil
		if seen && s.Outcome == Reported {
			want[at] = s.Load.KVActive.V
		}
	}
	got := make(map[workerAt]uint64)
	hits := make(map[string]uint64)
	for _, w := range h.f.Snapshot().Workers {
		if w.Load.OK {
			got[workerAt{w.Endpoint, w.ID}] = w.Load.V.KVActive.V
		}
		if members[w.Label] {
			hits[w.Label] += w.Hits.V.ISLBlocks
		}
	}
	equalMaps(t, "loads shown after "+what, got, want)
	endpoints := make(map[Endpoint]bool)
	for _, e := range h.f.RegisteredEndpoints() {
		endpoints[e] = true
	}
	equalMaps(t, "registered endpoints after "+what, endpoints, registered)
	if h.f.Target() == everything { // with another target a worker can become foreign
		for label, before := range h.hits {
			if members[label] && hits[label] < before {
				t.Errorf("counter of registered worker %s went from %d back to %d after %s", label, before, hits[label], what)
			}
		}
	}
	h.hits = hits
	if t.Failed() {
		t.FailNow()
	}
}

// equalMaps is a fast version of testutil.Equal for maps.
func equalMaps[K, V comparable](t *testing.T, what string, got, want map[K]V) {
	t.Helper()
	if !maps.Equal(got, want) {
		testutil.Equal(t, what, got, want)
	}
}

// emptyOut removes all workers, and checks that only the endpoint of the flags is left.
func (h *history) emptyOut(t *testing.T) {
	h.f.Sync(Listing{})
	for range 3 {
		h.f.BeginPoll()
		h.f.EndPoll(true)
	}
	for range 3 {
		h.now = h.now.Add(retention)
		h.f.Advance(h.now)
	}
	checkInvariants(t, h.f)
	testutil.Equal(t, "workers left", h.f.workers.len(), 0)
	left := slices.Collect(maps.Keys(h.f.endpoints))
	if h.f.Target().Name != "" && !h.f.Target().MultipleNamespaces() {
		testutil.Equal(t, "endpoints left", left, []Endpoint{Endpoint(h.f.Target())})
		return
	}
	testutil.Equal(t, "endpoints left", len(left), 0)
}
