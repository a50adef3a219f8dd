package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// FuzzParseStatsReply checks that the encoding of a reply decodes to the same reply, and
// that the data of its endpoints is JSON.
func FuzzParseStatsReply(f *testing.F) {
	for _, file := range capturedReplies(f) {
		f.Add(testutil.Captured(f, file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, err := ParseStatsReply(b)
		if err != nil {
			testutil.Equal(t, "reply", reply, StatsReply{})
			return
		}
		var rewritten bytes.Buffer
		fmt.Fprintf(&rewritten, `{"type":%q,"name":%s,"id":%s,"endpoints":[`, statsType, quoted(reply.Service), quoted(reply.ID))
		for i, e := range reply.Endpoints {
			if i > 0 {
				rewritten.WriteByte(',')
			}
			data := e.Data
			if data == nil {
				data = []byte("null")
			}
			if !json.Valid(data) {
				t.Errorf("the data of endpoint %q is %q, which is not JSON", e.Subject, data)
			}
			reply.Endpoints[i].Data = data
			fmt.Fprintf(&rewritten, `{"subject":%s,"data":%s}`, quoted(e.Subject), data)
		}
		rewritten.WriteString("]}")
		got, err := ParseStatsReply(rewritten.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, reply)
	})
}

// FuzzParseLoad checks that a load decodes to the same load in both shapes, and that its
// fractions are finite numbers.
func FuzzParseLoad(f *testing.F) {
	for _, file := range capturedReplies(f) {
		reply, _ := endpointLoadsOf(f, testutil.Captured(f, file))
		for _, e := range reply.Endpoints {
			f.Add(e.Data)
		}
	}
	for _, release := range []string{"0.1.1", "0.2.1", "0.5.1"} {
		for _, data := range testutil.CapturedJSON[map[string]json.RawMessage](f, release, "edge", "nan.json") {
			f.Add([]byte(data))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		load, _, ok, err := ParseLoad(data)
		if ok != (load != fleet.Load{}) {
			t.Fatalf("ParseLoad = %+v, %v, %v", load, ok, err)
		}
		if !ok {
			if none := len(data) == 0 || string(data) == "null"; none != (err == nil) {
				t.Fatalf("ParseLoad = %v, %v", ok, err)
			}
			return
		}
		if err != nil || !json.Valid(data) {
			t.Fatalf("ParseLoad = %+v, %v, of %q", load, err, data)
		}
		for _, fraction := range []fleet.Opt[float64]{load.CacheUsage, load.HitRate} {
			if math.IsNaN(fraction.V) || math.IsInf(fraction.V, 0) {
				t.Errorf("a fraction is %v", fraction.V)
			}
		}
		nested, _, _, err := ParseLoad(nestedLoad(load))
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "nested load", nested, load)

		flat := load
		flat.SpecDrafts, flat.SpecDraftTokens, flat.SpecAccepted = fleet.Opt[uint64]{}, fleet.Opt[uint64]{}, fleet.Opt[uint64]{}
		got, _, _, err := ParseLoad(flatLoad(flat))
		if err != nil && flat != (fleet.Load{}) {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, flat)
	})
}

// FuzzParseHitRate checks the fast path against encoding/json, that the encoding of a hit
// decodes to the same hit, and that its values are small enough to be summed.
func FuzzParseHitRate(f *testing.F) {
	for _, r := range releases {
		if r.name == "0.3.2" { // has no captured hits
			continue
		}
		for line := range bytes.Lines(testutil.Captured(f, r.name, "kv_hit_rate.jsonl")) {
			var message struct{ Payload string }
			if err := json.Unmarshal(line, &message); err != nil {
				f.Fatal(err)
			}
			f.Add([]byte(message.Payload))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkHitRate(t, b)
		hit, err := ParseHitRate(b)
		if err != nil {
			testutil.Equal(t, "hit", hit, HitRate{})
			return
		}
		if hit.ISLBlocks > maxBlocks || hit.OverlapBlocks > maxBlocks || !json.Valid(b) {
			t.Errorf("ParseHitRate(%q) = %+v", b, hit)
		}
		rewritten := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, hit.Worker, hit.ISLBlocks, hit.OverlapBlocks)
		got, err := ParseHitRate(rewritten)
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, hit)
	})
}

// FuzzSplitSubject checks that Subject and SplitSubject are inverses of each other for valid
// names.
func FuzzSplitSubject(f *testing.F) {
	for _, file := range capturedReplies(f) {
		reply, _ := endpointLoadsOf(f, testutil.Captured(f, file))
		for _, e := range reply.Endpoints {
			f.Add(reply.Service, e.Subject, "generate", uint64(0x1f))
		}
	}
	f.Add("svc", "svc.a-beef", "a-beef", uint64(0))
	f.Add("svc", "svc.\xff", strings.Repeat("e", 256), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, service, subject, name string, lease uint64) {
		isEndpoint := func(s string) bool { return s == name }
		endpoint, id, ok := SplitSubject(service, subject, isEndpoint)
		if ok && Subject(service, endpoint, id) != subject {
			t.Errorf("SplitSubject(%q, %q) = %q, %x: that is %q", service, subject, endpoint, id, Subject(service, endpoint, id))
		}
		if ok && (!wantValidName(endpoint) || subject == service+"."+name && id != 0) {
			t.Errorf("SplitSubject(%q, %q) = %q, %x", service, subject, endpoint, id)
		}
		if !ok && (endpoint != "" || id != 0) {
			t.Errorf("SplitSubject(%q, %q) is not ok, but %q, %x", service, subject, endpoint, id)
		}

		whole := Subject(service, name, lease)
		endpoint, id, ok = SplitSubject(service, whole, isEndpoint)
		if wantValidName(name) && (!ok || endpoint != name || id != lease) {
			t.Errorf("SplitSubject(%q, %q) = %q, %x, %v, want %q, %x", service, whole, endpoint, id, ok, name, lease)
		}
		if !wantValidName(name) && ok && endpoint == name {
			t.Errorf("SplitSubject(%q, %q) is ok with %q", service, whole, endpoint)
		}
	})
}

// canonicalKey returns a key with its id as Dynamo writes it. Keys may have padded ids or
// capitals.
func canonicalKey(key string) string {
	id := key[strings.LastIndexAny(key, "/:")+1:]
	return strings.TrimSuffix(key, id) + strings.ToLower(strings.TrimLeft(id, "0"))
}

// FuzzParseKey checks that Key and ParseKey are inverses of each other for valid names.
func FuzzParseKey(f *testing.F) {
	for _, r := range releases {
		for _, kv := range testutil.CapturedJSON[[]struct{ Key string }](f, r.name, "etcd_keys.json") {
			f.Add("dynamo", kv.Key, "backend", "generate", uint64(0x1f))
		}
	}
	f.Add("dynamo", "dynamo/components/metrics/instance", "über", "a:b", uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, namespace, key, component, endpoint string, id uint64) {
		for _, l := range Layouts {
			if in, ok := l.ParseKey(namespace, key); ok {
				testutil.Equal(t, "key", l.Key(namespace, in), canonicalKey(key))
				if !wantValidName(in.Component) || !wantValidName(in.Name) || in.ID == 0 {
					t.Errorf("ParseKey(%q) = %+v", key, in)
				}
			}
			want := instance(component, endpoint, id)
			valid := wantValidName(component) && wantValidName(endpoint) && id != 0 && !strings.Contains(component, "/")
			got, ok := l.ParseKey(namespace, l.Key(namespace, want))
			if valid && (!ok || got != want) {
				t.Errorf("ParseKey(%q) = %+v, %v, want %+v", l.Key(namespace, want), got, ok, want)
			}
		}
	})
}

// FuzzParseValue checks that a value fits the key that it was written for, and no other.
func FuzzParseValue(f *testing.F) {
	for _, r := range releases {
		for _, kv := range testutil.CapturedJSON[[]struct{ Key, Value string }](f, r.name, "etcd_keys.json") {
			in, _ := r.layout.ParseKey("dynamo", kv.Key)
			f.Add("dynamo", in.Component, in.Name, in.ID, []byte(kv.Value))
		}
	}
	f.Fuzz(func(t *testing.T, namespace, component, endpoint string, id uint64, value []byte) {
		in := instance(component, endpoint, id)
		for _, l := range Layouts {
			checkValueFitsKey(t, l, namespace, in, value)
			if !utf8.ValidString(namespace + "\x00" + component + "\x00" + endpoint) {
				continue
			}
			own := l.Value(namespace, in, string(value))
			if err := checkValue(l, namespace, in, own); err != nil {
				t.Errorf("layout %d: ParseValue of its own value %s: %v", l, own, err)
			}
			checkValueFitsKey(t, l, namespace, in, own)
			// The field of the id has the same name from 0.3.0 on.
			for _, other := range Layouts {
				differ := (l == LayoutComponents) != (other == LayoutComponents)
				if differ && id != 0 && !errors.Is(checkValue(other, namespace, in, own), ErrMismatch) {
					t.Errorf("a value of layout %d fits layout %d: %s", l, other, own)
				}
			}
		}
	})
}

// checkValueFitsKey checks that a value is either rejected or fits this key only.
func checkValueFitsKey(t *testing.T, l Layout, namespace string, in fleet.Instance, value []byte) {
	t.Helper()
	err := checkValue(l, namespace, in, value)
	if (err == nil || errors.Is(err, ErrMismatch)) && !json.Valid(value) {
		t.Errorf("layout %d: ParseValue = %v of %q, which is not JSON", l, err, value)
	}
	if err != nil {
		return
	}
	for _, other := range []fleet.Instance{
		instance(in.Component+"x", in.Name, in.ID), instance(in.Component, in.Name+"x", in.ID), instance(in.Component, in.Name, in.ID+1),
	} {
		if err := checkValue(l, namespace, other, value); !errors.Is(err, ErrMismatch) {
			t.Errorf("layout %d: the value of %+v fits %+v: %v", l, in, other, err)
		}
	}
	if err := checkValue(l, namespace+"x", in, value); !errors.Is(err, ErrMismatch) {
		t.Errorf("layout %d: the value of %+v fits another namespace: %v", l, in, err)
	}
}

// wantValidName is an independent implementation of validName.
func wantValidName(s string) bool { return 0 < len(s) && len(s) <= 256 && utf8.ValidString(s) }

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// fields returns the present fields of a JSON object, in the given order.
func fields(pairs ...any) string {
	var known []string
	for i := 0; i < len(pairs); i += 2 {
		switch o := pairs[i+1].(type) {
		case fleet.Opt[uint64]:
			if o.OK {
				known = append(known, fmt.Sprintf("%q:%d", pairs[i], o.V))
			}
		case fleet.Opt[float64]:
			if o.OK {
				known = append(known, fmt.Sprintf("%q:%v", pairs[i], o.V))
			}
		}
	}
	return strings.Join(known, ",")
}

func workerFields(l fleet.Load) string {
	return fields("request_active_slots", l.ActiveSlots, "request_total_slots", l.TotalSlots, "num_requests_waiting", l.Waiting)
}

func kvFields(l fleet.Load) string {
	return fields("kv_active_blocks", l.KVActive, "kv_total_blocks", l.KVTotal,
		"gpu_cache_usage_perc", l.CacheUsage, "gpu_prefix_cache_hit_rate", l.HitRate)
}

// flatLoad encodes a load in the shape of 0.3.0, and nestedLoad in that of 0.3.2.
func flatLoad(l fleet.Load) []byte {
	return []byte("{" + strings.Trim(workerFields(l)+","+kvFields(l), ",") + "}")
}

func nestedLoad(l fleet.Load) []byte {
	spec := fields("num_drafts", l.SpecDrafts, "num_draft_tokens", l.SpecDraftTokens, "num_accepted_tokens", l.SpecAccepted)
	return fmt.Appendf(nil, `{"worker_stats":{%s},"kv_stats":{%s},"spec_decode_stats":{%s}}`, workerFields(l), kvFields(l), spec)
}
