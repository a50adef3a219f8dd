//go:build real

package survival

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// subjects are what the program has subscribed to, with names for the wildcards.
func subjects() map[fleet.Kind][]string {
	all := map[fleet.Kind][]string{fleet.HitRate: {wire.HitRateSubject("dynamo")}, fleet.Trace: {wire.TraceSubject}}
	for kind, topic := range map[fleet.Kind]string{fleet.LoadEvent: wire.TopicLoad, fleet.ForwardPass: wire.TopicForwardPass} {
		for _, s := range wire.EventSubjects("dynamo", topic) {
			s = strings.Replace(strings.Replace(s, "*", "backend", 1), "*", "generate", 1)
			all[kind] = append(all[kind], s)
		}
	}
	return all
}

// keys are keys that name a worker, below every prefix that is watched.
func keys(id uint64) map[fleet.Kind][]string {
	in, hex := instance(id), wire.HexID(id)
	all := make(map[fleet.Kind][]string)
	for _, l := range wire.Layouts {
		all[fleet.Instances] = append(all[fleet.Instances], l.Key("dynamo", in))
	}
	all[fleet.Cards] = []string{wire.CardKey("dynamo", in)}
	prefixes := wire.ChannelPrefixes("dynamo")
	all[fleet.Channels] = []string{prefixes[0] + "backend/kv_metrics/" + hex, prefixes[1] + "component/backend/endpoint/generate/topic/kv_metrics/" + hex}
	return all
}

// badKeys are keys below the same prefixes that name nobody.
func badKeys() map[fleet.Kind][]string {
	all := make(map[fleet.Kind][]string)
	add := func(k fleet.Kind, prefixes ...string) {
		for _, p := range prefixes {
			for _, rest := range []string{"x", "//", "backend/generate:", "backend/generate/", "backend/generate:XYZ", "backend/generate/-1", "a/b/c/d/e/f/g",
				"\x00\xff", "backend/generate:00", strings.Repeat("y", 2000), "backend/\xff:7f"} {
				all[k] = append(all[k], p+rest)
			}
		}
	}
	for _, l := range wire.Layouts {
		add(fleet.Instances, l.Prefix("dynamo"))
	}
	add(fleet.Cards, wire.CardPrefix("dynamo"))
	add(fleet.Channels, wire.ChannelPrefixes("dynamo")...)
	return all
}

// rejections are how many messages of a kind a page says were rejected, for whatever reason.
func (p page) rejections(k fleet.Kind) (n float64) {
	for _, r := range fleet.Reasons() {
		n += p.number(rejected(k, r))
	}
	return n
}

// TestGarbageEverywhere sends each file of the corpus, none of which is anything, by
// every way there is into the program.
func TestGarbageEverywhere(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	good := f.worker(1, 10)
	m := f.run()
	m.shows(merged(up, loads(good)))
	r := f.route(good)
	w := m.witnessed(always(loads(good)), always(page{workers("answering"): "1", workers("silent"): "0"}), countersOf(good), pairs(nil), bounded(1, 150<<20))
	before, err := m.page()
	if err != nil {
		t.Fatal(err)
	}
	corpus := garbage(t)
	sent := make(map[fleet.Kind]int)
	for kind, subjects := range subjects() {
		for _, subject := range subjects {
			for _, b := range corpus {
				if err := f.nc.Publish(subject, b); err != nil {
					t.Fatal(err)
				}
				sent[kind]++
			}
		}
	}
	for i, name := range slices.Sorted(maps.Keys(corpus)) {
		for kind, keys := range keys(uint64(1000 + i)) {
			for _, key := range keys {
				f.put(key, string(corpus[name]))
				sent[kind]++
			}
		}
	}
	for kind, keys := range badKeys() {
		for _, key := range keys {
			f.put(key, valueOf(7))
			sent[kind]++
		}
	}
	var once sync.Once
	f.answers(func(respond func([]byte)) {
		once.Do(func() {
			for _, b := range corpus {
				respond(b)
			}
		})
	})
	sent[fleet.StatsReply] = len(corpus)
	m.until(func(now page) error {
		for kind, n := range sent {
			if got := now.rejections(kind) - before.rejections(kind); got != float64(n) {
				return fmt.Errorf("%v: %v rejected, want %d", kind, got, n)
			}
			// Of the good worker's own kinds there are good ones too.
			if got := now.number(messages(kind)) - before.number(messages(kind)); got < float64(n) || got > float64(n) && kind != fleet.StatsReply && kind != fleet.HitRate {
				return fmt.Errorf("%v: %v received, want %d", kind, got, n)
			}
		}
		return nil
	})
	r.settle(m)
	w.stop()
	m.Terminate()
}

func (f *lab) put(key, value string) {
	f.t.Helper()
	if _, err := f.ec.Put(f.t.Context(), key, value); err != nil {
		f.t.Fatal(err)
	}
}

// garbage is the corpus, by file.
func garbage(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("testdata", "garbage"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files of garbage, %v", len(files), err)
	}
	all := make(map[string][]byte)
	for _, e := range files {
		all[e.Name()] = file(t, "garbage", e.Name())
	}
	return all
}

// seeds are real messages of workers of all releases, by kind.
func seeds(t *testing.T) map[fleet.Kind][][]byte {
	t.Helper()
	all := make(map[fleet.Kind][][]byte)
	captures, err := filepath.Glob("../../internal/wire/testdata/*/*.jsonl")
	if err != nil || len(captures) == 0 {
		t.Fatalf("%d captures, %v", len(captures), err)
	}
	for _, name := range captures {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		for lines.Buffer(nil, 1<<20); lines.Scan(); {
			var v struct {
				Subject, Payload string
				Base64           []byte `json:"payload_base64"`
			}
			if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for kind, end := range map[fleet.Kind]string{
				fleet.LoadEvent: wire.TopicLoad, fleet.HitRate: wire.TopicHitRate, fleet.ForwardPass: wire.TopicForwardPass, fleet.Trace: wire.TraceSubject,
			} {
				if strings.HasSuffix(v.Subject, end) {
					all[kind] = append(all[kind], append([]byte(v.Payload), v.Base64...))
				}
			}
		}
	}
	for i, data := range []string{flat(50), "null", `{"worker_stats":{"request_active_slots":1},"kv_stats":{"kv_active_blocks":5,"kv_total_blocks":9}}`} {
		all[fleet.StatsReply] = append(all[fleet.StatsReply], reply(uint64(2000+i), data))
		all[fleet.Instances] = append(all[fleet.Instances], []byte(valueOf(uint64(3000+i))), wire.LayoutV1.Value("dynamo", instance(uint64(3000+i)), "127.0.0.1:9/x"))
	}
	all[fleet.Cards] = [][]byte{[]byte(`{"type":"Model","card_json":{"display_name":"tiny","kv_cache_block_size":16,"runtime_config":{"total_kv_blocks":1000,"max_num_seqs":100,"data_parallel_size":1}}}`)}
	corpus := garbage(t)
	for kind := range all {
		for _, name := range slices.Sorted(maps.Keys(corpus)) {
			if b := corpus[name]; len(b) < 16<<10 {
				all[kind] = append(all[kind], b)
			}
		}
	}
	return all
}

// mutated is a message with some of its bytes changed, doubled, cut out, or followed by
// another's.
func mutated(rng *rand.Rand, seeds [][]byte) []byte {
	b := slices.Clone(seeds[rng.IntN(len(seeds))])
	for range 1 + rng.IntN(4) {
		if len(b) == 0 {
			return b
		}
		i := rng.IntN(len(b))
		j := i + rng.IntN(min(len(b)-i, 16)+1)
		switch rng.IntN(6) {
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
		}
	}
	return b
}

// TestFuzzedMessagesEverywhere sends what is almost right. Of that anything may be, but
// for the good worker's values, the program's life, and each message's being counted.
func TestFuzzedMessagesEverywhere(t *testing.T) {
	f := newLab(t)
	f.interval = "0.2"
	good := f.worker(1, 10)
	const limit = 500
	m := f.run("--max-workers", fmt.Sprint(limit))
	m.shows(merged(up, loads(good)))
	own := func(s string) bool { return s != of(isl, good.id) }
	w := m.witnessed(always(loads(good)), countersOf(good), pairs(own), bounded(2*limit, 200<<20)) // a worker may be at two endpoints
	before, err := m.page()
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	all, subjects, sent := seeds(t), subjects(), make(map[fleet.Kind]int)
	const ofGood = 7
	kinds := slices.Sorted(maps.Keys(subjects))
	for end := time.Now().Add(pick(15*time.Second, 5*time.Minute)); time.Now().Before(end); {
		for range 2000 {
			kind := kinds[rng.IntN(len(kinds))]
			if err := f.nc.Publish(subjects[kind][rng.IntN(len(subjects[kind]))], mutated(rng, all[kind])); err != nil {
				t.Fatal(err)
			}
			sent[kind]++
		}
		if err := f.hit(good.id, ofGood); err != nil {
			t.Fatal(err)
		}
		sent[fleet.HitRate]++
		f.flush()
		answered := make(chan struct{})
		var once sync.Once
		sub := f.answers(func(respond func([]byte)) {
			once.Do(func() {
				for range 200 {
					respond(mutated(rng, all[fleet.StatsReply]))
				}
				close(answered)
			})
		})
		<-answered // the program polls five times a second
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		for kind, keys := range keys(3000 + rng.Uint64N(5)) {
			for _, key := range keys {
				if rng.IntN(3) == 0 {
					f.remove(key)
				}
				if kind != fleet.Channels { // it would connect to whatever a channel says
					f.put(key, string(mutated(rng, all[kind])))
				}
			}
		}
	}
	m.until(func(now page) error {
		for kind, n := range sent {
			if got := now.number(messages(kind)) - before.number(messages(kind)) + now.number(queueFull); got != float64(n) {
				return fmt.Errorf("%v: %v received, want %d", kind, got, n)
			}
			if n := now.rejections(kind); n == 0 || n > now.number(messages(kind)) {
				return fmt.Errorf("%v: %v rejected of %s", kind, n, now[messages(kind)])
			}
		}
		return now.has(loads(good))
	})
	p, err := m.page()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range fleet.Kinds() {
		t.Logf("%v: %s received, %v rejected", kind, p[messages(kind)], p.rejections(kind))
	}
	if p.number(of(overlap, good.id)) < ofGood {
		t.Errorf("the good worker's hits are %s", p[of(overlap, good.id)])
	}
	w.stop()
	m.Terminate()
}

func (f *lab) remove(key string) {
	f.t.Helper()
	if _, err := f.ec.Delete(f.t.Context(), key); err != nil {
		f.t.Fatal(err)
	}
}
