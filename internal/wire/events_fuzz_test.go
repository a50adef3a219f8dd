package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// FuzzParseEnvelope checks that an envelope aliases its input, and that its encoding
// decodes to the same envelope, over NATS and over ZMQ.
func FuzzParseEnvelope(f *testing.F) {
	for _, release := range natsReleases {
		for _, m := range natsEvents(f, release) {
			f.Add(m.data)
		}
	}
	f.Add(pack(envelopeFields().with("later", unknownValue())))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnvelope(b)
		if err != nil {
			testutil.Equal(t, "event", e, Envelope{})
			return
		}
		if !IsEnvelope(b) || len(e.Topic) == 0 || len(e.Topic) > 256 || e.PublishedAt > 1<<48 {
			t.Errorf("ParseEnvelope(%x) = %+v", b, e)
		}
		if !bytes.Contains(b, e.Topic) || !bytes.Contains(b, e.Payload) {
			t.Errorf("%q or %q is not part of %x", e.Topic, e.Payload, b)
		}
		rewritten := pack(pairs{
			"topic", string(e.Topic), "payload", e.Payload, "sequence", e.Sequence, "publisher_id", e.Publisher, "published_at", e.PublishedAt,
		})
		testutil.Equal(t, "envelope", envelopeOf(t, rewritten), e)
		subject, got, err := ParseFrames(framesOf([]byte("s"), e, rewritten))
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, e)
		testutil.Equal(t, "subject", string(subject), "s")
	})
}

func framesOf(subject []byte, e Envelope, envelope []byte) [][]byte {
	body := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(envelope)))
	return [][]byte{
		subject, binary.BigEndian.AppendUint64(nil, e.Publisher), binary.BigEndian.AppendUint64(nil, e.Sequence), append(body, envelope...),
	}
}

// FuzzParseFrames checks that the envelope of accepted frames encodes to the same frames.
func FuzzParseFrames(f *testing.F) {
	for _, release := range zmqReleases {
		for _, frames := range zmqEvents(f, release) {
			f.Add(frames[0], frames[1], frames[2], frames[3])
		}
	}
	f.Fuzz(func(t *testing.T, a, b, c, d []byte) {
		frames := [][]byte{a, b, c, d}
		subject, e, err := ParseFrames(frames)
		if err != nil {
			testutil.Equal(t, "event", e, Envelope{})
			return
		}
		testutil.Equal(t, "frames", framesOf(subject, e, d[5:]), frames)
		testutil.Equal(t, "envelope", envelopeOf(t, d[5:]), e)
	})
}

// FuzzParseActiveLoad checks that the encoding of a load decodes to the same load, with its
// fields in any order.
func FuzzParseActiveLoad(f *testing.F) {
	for _, payload := range payloadsOf(f, TopicLoad) {
		f.Add(payload)
	}
	f.Add(pack(activeLoadFields().with("later", unknownValue())))
	f.Fuzz(func(t *testing.T, payload []byte) {
		l, err := ParseActiveLoad(payload)
		if err != nil {
			testutil.Equal(t, "load", l, ActiveLoad{})
			return
		}
		fields := pairs{
			"kv_used_blocks", l.UsedBlocks, "active_prefill_tokens", l.PrefillTokens, "active_decode_blocks", l.DecodeBlocks,
			"dp_rank", uint64(l.Rank), "worker_id", l.Worker,
		}
		for _, fields := range []pairs{fields, fields.reversed()} {
			got, err := ParseActiveLoad(pack(fields))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, l)
		}
		for _, o := range []fleet.Opt[uint64]{l.UsedBlocks, l.PrefillTokens, l.DecodeBlocks} {
			if !o.OK && o.V != 0 {
				t.Errorf("%+v has a value but is absent", l)
			}
		}
	})
}

// FuzzParseHitRateMsgpack checks that msgpack and JSON decode to the same hit.
func FuzzParseHitRateMsgpack(f *testing.F) {
	for _, payload := range payloadsOf(f, TopicHitRate) {
		f.Add(payload)
	}
	f.Add(pack(hitRateFields().with("later", unknownValue())))
	f.Fuzz(func(t *testing.T, payload []byte) {
		hit, err := ParseHitRateMsgpack(payload)
		if err != nil {
			testutil.Equal(t, "hit", hit, HitRate{})
			return
		}
		got, err := ParseHitRate(fmt.Appendf(nil, `{"worker_id":%d,"dp_rank":0,"isl_blocks":%d,"overlap_blocks":%d}`, hit.Worker, hit.ISLBlocks, hit.OverlapBlocks))
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, hit)
		got, err = ParseHitRateMsgpack(pack(pairs{"overlap_blocks", hit.OverlapBlocks, "isl_blocks", hit.ISLBlocks, "worker_id", hit.Worker}))
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, hit)
	})
}

// FuzzParseLoadEvent checks the fast path against encoding/json, that all fractions have
// single precision, and that the encoding of an event decodes to the same event.
func FuzzParseLoadEvent(f *testing.F) {
	for _, release := range []string{"0.5.1", "0.6.1", "0.7.1", "0.8.1"} {
		for _, event := range loadEventsOf(f, release) {
			f.Add(event)
		}
	}
	f.Add([]byte(`{"worker_id":1,"dp_rank":3,"active_decode_blocks":24,"active_prefill_tokens":388}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkLoadEvent(t, b)
		e, err := ParseLoadEvent(b)
		if err != nil {
			testutil.Equal(t, "event", e, LoadEvent{})
			return
		}
		if !json.Valid(b) || e.Load == (fleet.Load{}) && !e.Estimate {
			t.Fatalf("ParseLoadEvent(%q) = %+v", b, e)
		}
		for _, fraction := range []fleet.Opt[float64]{e.Load.CacheUsage, e.Load.HitRate} {
			if float64(float32(fraction.V)) != fraction.V || math.IsInf(fraction.V, 0) {
				t.Errorf("a fraction is %v", fraction.V)
			}
		}
		if e.Estimate || e.Load == (fleet.Load{KVActive: e.Load.KVActive}) {
			flat := fmt.Appendf(nil, `{"worker_id":%d,"dp_rank":%d,%s}`, e.Worker, e.Rank, fields("active_decode_blocks", e.Load.KVActive,
				"active_prefill_tokens", fleet.Opt[uint64]{OK: e.Estimate})+strings.Repeat(`"x":0`, boolInt(!e.Load.KVActive.OK && !e.Estimate)))
			e := e
			e.Source = fleet.FromActiveLoad
			checkReparsedEvent(t, flat, e)
		}
		if !e.Estimate {
			rank := fmt.Sprintf(`{"worker_stats":{"data_parallel_rank":%d,`, e.Rank)
			data := strings.Replace(strings.Replace(string(nestedLoad(e.Load)), `{"worker_stats":{`, rank, 1), ",}", "}", 1)
			e.Source = fleet.FromLoadEvent
			checkReparsedEvent(t, fmt.Appendf(nil, `{"data":%s,"worker_id":%d}`, data, e.Worker), e)
		}
	})
}

func checkReparsedEvent(t *testing.T, rewritten []byte, want LoadEvent) {
	t.Helper()
	got, err := ParseLoadEvent(rewritten)
	if err != nil {
		t.Fatalf("%v, of %s", err, rewritten)
	}
	testutil.Equal(t, "result", got, want)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// FuzzParseForwardPass checks that the encoding of a pass decodes to the same pass, and
// that its values are small enough to be summed.
func FuzzParseForwardPass(f *testing.F) {
	for _, payload := range payloadsOf(f, TopicForwardPass) {
		f.Add(payload)
	}
	f.Add(pack(forwardPassFields().with("later", unknownValue())))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := ParseForwardPass(payload)
		if err != nil {
			testutil.Equal(t, "pass", p, ForwardPass{})
			return
		}
		if !(p.WallTime >= 0 && p.WallTime <= 1e7) || p.HasWorkerID != (p.Worker != 0) {
			t.Errorf("ParseForwardPass(%x) = %+v", payload, p)
		}
		for _, n := range []uint64{p.Running(), p.Waiting()} {
			if n > 2*maxRequests {
				t.Errorf("%d requests of %+v", n, p)
			}
		}
		requests := func(r PassRequests) pairs {
			return pairs{
				"sum_decode_kv_tokens", r.DecodeKVTokens, "num_decode_requests", r.DecodeRequests, "sum_prefill_kv_tokens", r.PrefillKVTokens,
				"sum_prefill_tokens", r.PrefillTokens, "num_prefill_requests", r.PrefillRequests,
			}
		}
		worker := ""
		if p.HasWorkerID {
			worker = fmt.Sprint(p.Worker)
		}
		got, err := ParseForwardPass(pack(pairs{
			"queued_requests", requests(p.Queued), "scheduled_requests", requests(p.Scheduled), "wall_time", p.WallTime,
			"counter_id", p.Counter, "dp_rank", uint64(p.Rank), "worker_id", worker, "version", 1,
		}))
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, p)
	})
}

// FuzzParseTrace checks that an accepted record is JSON, and that its values are small
// enough to be summed.
func FuzzParseTrace(f *testing.F) {
	for _, record := range traces(f) {
		f.Add(record)
	}
	f.Add([]byte(requestRecord(`,"worker":{"prefill_worker_id":1,"prefill_dp_rank":3,"decode_worker_id":2},"kv_hit_rate":0.5,"replay":{"trace_block_size":16,"input_length":33}`)))
	f.Add([]byte(`{"schema":"dynamo.request.trace.v1","event_type":"tool_end"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		trace, err := ParseTrace(b)
		if err != nil {
			testutil.Equal(t, "trace", trace, Trace{})
			if err == ErrNotRequestEnd && !json.Valid(b) {
				t.Errorf("ParseTrace(%q) = %v", b, err)
			}
			return
		}
		if !json.Valid(b) {
			t.Errorf("ParseTrace(%q) = %+v", b, trace)
		}
		for _, o := range []fleet.Opt[uint64]{
			trace.ISLBlocks, trace.OverlapBlocks, trace.BlockSize, trace.InputTokens, trace.CachedTokens, trace.OutputTokens, trace.QueueDepth,
		} {
			if o.V > 1<<40 || !o.OK && o.V != 0 {
				t.Errorf("a count is %+v in %+v", o, trace)
			}
		}
		for _, o := range []fleet.Opt[float64]{trace.TTFT, trace.InterToken, trace.Duration} {
			if !(o.V >= 0 && o.V <= 1e7) {
				t.Errorf("a time is %+v in %+v", o, trace)
			}
		}
		if trace.OverlapBlocks.OK && !trace.ISLBlocks.OK || trace.ISLBlocks.OK != trace.BlockSize.OK {
			t.Errorf("a block count is without its counterpart in %+v", trace)
		}
	})
}

// FuzzParseEventSubject checks that every subject built from valid names is parsed, and
// that all parsed names are valid.
func FuzzParseEventSubject(f *testing.F) {
	for _, release := range natsReleases {
		for _, m := range natsEvents(f, release) {
			f.Add("lab", m.subject, "backend", "generate", TopicLoad)
		}
	}
	f.Add("a.b", "namespace.a.b.component.c*d.kv_metrics", "ü", "e.endpoint.f", "%")
	f.Fuzz(func(t *testing.T, namespace, subject, component, endpoint, topic string) {
		e, got, ok := ParseEventSubject(namespace, subject)
		if !ok && (e != fleet.Endpoint{} || got != "") {
			t.Errorf("ParseEventSubject(%q) is not ok, but %+v, %q", subject, e, got)
		}
		if ok && (!wantValidName(got) || e.Component != "" && !wantValidName(e.Component) || e.Name != "" && !wantValidName(e.Name) || e.Name != "" && e.Component == "") {
			t.Errorf("ParseEventSubject(%q) = %+v, %q", subject, e, got)
		}
		if !wantValidName(component) || !wantValidName(endpoint) || !wantValidName(topic) {
			return
		}
		for _, c := range []struct {
			scope string
			want  fleet.Endpoint
		}{
			{"namespace." + escapeName(namespace), fleet.Endpoint{}},
			{"namespace." + escapeName(namespace) + ".component." + escapeName(component), fleet.Endpoint{Component: component}},
			{"namespace." + escapeName(namespace) + ".component." + escapeName(component) + ".endpoint." + escapeName(endpoint), fleet.Endpoint{Component: component, Name: endpoint}},
		} {
			subject := c.scope + "." + escapeName(topic)
			e, got, ok := ParseEventSubject(namespace, subject)
			if e != c.want || got != topic || !ok {
				t.Errorf("ParseEventSubject(%q) = %+v, %q, %v, want %+v, %q", subject, e, got, ok, c.want, topic)
			}
		}
	})
}

// FuzzParseCardKey checks that ParseCardKey is the inverse of CardKey.
func FuzzParseCardKey(f *testing.F) {
	for _, release := range []string{"0.6.1", "0.9.1", "1.6.1"} {
		for _, kv := range testutil.CapturedJSON[[]keyValue](f, release, "etcd_keys.json") {
			f.Add("lab", kv.Key, "backend", "generate", uint64(0x1f))
		}
	}
	f.Add("lab", "v1/mdc/lab/backend/generate/1f/beef", "über", "a/b", uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, namespace, key, component, endpoint string, id uint64) {
		in, ok := ParseCardKey(namespace, key)
		if ok {
			testutil.Equal(t, "CardKey", CardKey(namespace, in), canonicalKey(key))
			if !wantValidName(in.Component) || !wantValidName(in.Name) || in.ID == 0 || IsIgnoredKey(namespace, key) {
				t.Errorf("ParseCardKey(%q) = %+v", key, in)
			}
		}
		want := instance(component, endpoint, id)
		key = CardKey(namespace, want)
		got, ok := ParseCardKey(namespace, key)
		valid := wantValidName(component) && wantValidName(endpoint) && id != 0 && !strings.Contains(component+endpoint, "/")
		if ok != valid || ok && got != want {
			t.Errorf("ParseCardKey(%q) = %+v, %v, want %+v, %v", key, got, ok, want, valid)
		}
		if adapter := key + "/beef"; valid && !IsIgnoredKey(namespace, adapter) {
			t.Errorf("IsIgnoredKey(%q) is false", adapter)
		}
	})
}

// FuzzParseCard checks that an accepted card is JSON, and that its encoding decodes to the
// same card, both alone and in a value of type Model.
func FuzzParseCard(f *testing.F) {
	for _, release := range []string{"0.6.1", "0.9.1", "1.6.1"} {
		for _, kv := range etcdKeys(f, release, CardPrefix("lab")) {
			f.Add([]byte(kv.Value))
		}
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		card, err := ParseCard(value)
		if err != nil {
			testutil.Equal(t, "card", card, fleet.Card{})
			return
		}
		if !json.Valid(value) || card.Model != "" && !wantValidName(card.Model) {
			t.Errorf("ParseCard(%q) = %+v", value, card)
		}
		info := `"of another form"`
		if card.Metrics != "" {
			info = `{"hf_config_json":{"path":` + quoted("http://"+card.Metrics+systemFiles) + `}}`
		}
		alone := fmt.Sprintf(`{"display_name":%s%s,"model_info":%s,"runtime_config":{%s}}`, quoted(card.Model), commaBefore(fields("kv_cache_block_size", card.BlockSize)), info,
			fields("total_kv_blocks", card.KVTotal, "max_num_seqs", card.MaxSeqs, "data_parallel_size", card.Ranks))
		for _, rewritten := range []string{alone, `{"type":"Model","card_json":` + alone + `}`} {
			got, err := ParseCard([]byte(rewritten))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, card)
		}
	})
}

func commaBefore(s string) string {
	if s == "" {
		return ""
	}
	return "," + s
}

// FuzzParseChannel checks that an accepted channel agrees with its key and has a valid
// address if any, and that the two layouts of keys are not confused.
func FuzzParseChannel(f *testing.F) {
	for _, release := range []string{"0.9.1", "1.6.1"} {
		for _, kv := range testutil.CapturedJSON[[]keyValue](f, release, "etcd_keys.json") {
			f.Add("lab", kv.Key, []byte(kv.Value))
		}
	}
	for _, release := range fileReleases {
		for _, kv := range fileEntries(f, release) {
			f.Add("lab", kv.Key, []byte(kv.Value))
		}
	}
	f.Add("namespace", "v1/event_channels/namespace/namespace/kv_metrics/1f", []byte(`{}`))
	f.Fuzz(func(t *testing.T, namespace, key string, value []byte) {
		fromKey, ok := ParseChannelKey(namespace, key)
		if !ok && fromKey != (fleet.Channel{}) {
			t.Errorf("ParseChannelKey(%q) is not ok, but %+v", key, fromKey)
		}
		c, err := ParseChannel(namespace, key, value)
		if err != nil {
			testutil.Equal(t, "channel", c, fleet.Channel{})
		} else {
			checkChannel(t, fromKey, c)
		}
		if !ok {
			return
		}
		if !slices.ContainsFunc(ChannelPrefixes(namespace), func(p string) bool { return strings.HasPrefix(key, p) }) {
			t.Errorf("ParseChannelKey(%q) = %+v, below none of the prefixes", key, fromKey)
		}
		checkChannelKeys(t, namespace, fromKey)
	})
}

func checkChannel(t *testing.T, fromKey, c fleet.Channel) {
	t.Helper()
	bare := c
	bare.Plane, bare.Address, bare.SubjectPrefix = fleet.OtherPlane, "", ""
	testutil.Equal(t, "channel", bare, fromKey)
	switch c.Plane {
	case fleet.ZMQPlane, fleet.BrokerPlane:
		for address := range strings.SplitSeq(c.Address, ";") {
			if c.SubjectPrefix != "" || len(address) > 1024 || !strings.HasPrefix(address, "tcp://") || !strings.Contains(address[6:], ":") {
				t.Errorf("%+v was accepted as a channel", c)
			}
		}
	default:
		if c.Address != "" || len(c.SubjectPrefix) > 1024 || c.Plane != fleet.NATSPlane && c.SubjectPrefix != "" {
			t.Errorf("%+v was accepted as a channel", c)
		}
	}
}

// checkChannelKeys checks that the keys of a channel in both layouts parse to that channel.
func checkChannelKeys(t *testing.T, namespace string, c fleet.Channel) {
	t.Helper()
	scope := "namespace/" + escapeName(namespace)
	if c.Endpoint.Component != "" {
		scope += "/component/" + escapeName(c.Endpoint.Component)
	}
	if c.Endpoint.Name != "" {
		scope += "/endpoint/" + escapeName(c.Endpoint.Name)
	}
	keys := []string{"v1/event_channels/" + scope + "/topic/" + escapeName(c.Topic) + "/" + HexID(c.Publisher)}
	if c.Endpoint.Name == "" && !strings.Contains(c.Endpoint.Component+c.Topic, "/") {
		keys = append(keys, "v1/event_channels/"+namespace+"/"+c.Endpoint.Component+"/"+c.Topic+"/"+HexID(c.Publisher))
	}
	for _, key := range keys {
		if got, ok := ParseChannelKey(namespace, key); got != c || !ok {
			t.Errorf("ParseChannelKey(%q) = %+v, %v, want %+v", key, got, ok, c)
		}
	}
}

// FuzzFileName checks that FileName and FileKey are inverses of each other.
func FuzzFileName(f *testing.F) {
	for _, release := range fileReleases {
		for path := range testutil.CapturedJSON[map[string]string](f, release, "file_kv.json") {
			slash := strings.LastIndexByte(path, '/')
			f.Add(path[:slash], path[slash+1:], "lab/backend/generate/1f")
		}
	}
	f.Add("v1/instances", ".tmp_0123456789abcdef", "a%20b/\xff\x00é")
	f.Fuzz(func(t *testing.T, bucket, name, rest string) {
		if key, ok := FileKey(bucket, name); ok && strings.Count(bucket, "/") == 1 {
			gotBucket, gotName := FileName(key)
			testutil.Equal(t, "values", []string{gotBucket, gotName}, []string{bucket, name})
		}
		if rest == "" {
			return
		}
		key := "v1/mdc/" + rest
		bucket, name = FileName(key)
		if strings.ContainsAny(name, "/._-~ ") || !utf8.ValidString(name) {
			t.Errorf("FileName(%q) = %q", key, name)
		}
		got, ok := FileKey(bucket, name)
		if got != key || !ok {
			t.Errorf("FileKey(%q, %q) = %q, %v, want %q", bucket, name, got, ok, key)
		}
	})
}
