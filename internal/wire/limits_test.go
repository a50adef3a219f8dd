package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// These tests check the limits of this package from both sides. The numbers are those of
// SECURITY.md, and not the code's constants, so that a change of one requires a change of
// the other.

func TestLimitOfMsgpackFields(t *testing.T) {
	envelope := func(fields int) error {
		p := envelopeFields()
		for i := len(p) / 2; i < fields; i++ {
			p = append(p, fmt.Sprintf("later_%d", i), i)
		}
		_, err := ParseEnvelope(pack(p))
		return err
	}
	if err := envelope(256); err != nil {
		t.Errorf("256 fields: %v", err)
	}
	if err := envelope(257); !errors.Is(err, errMsgpackFields) {
		t.Errorf("257 fields: %v, want %v", err, errMsgpackFields)
	}
}

func TestLimitOfMsgpackNesting(t *testing.T) {
	envelope := func(levels int) error {
		var nested any = 1
		for range levels {
			nested = []any{nested}
		}
		_, err := ParseEnvelope(pack(append(envelopeFields(), "later", nested)))
		return err
	}
	if err := envelope(32); err != nil {
		t.Errorf("32 levels: %v", err)
	}
	if err := envelope(33); !errors.Is(err, errMsgpackDepth) {
		t.Errorf("33 levels: %v, want %v", err, errMsgpackDepth)
	}
}

func TestLimitOfNumbersInEvents(t *testing.T) {
	envelope := func(key string, v any) error {
		_, err := ParseEnvelope(pack(envelopeFields().with(key, v)))
		return err
	}
	pass := func(key string, v any) error {
		_, err := ParseForwardPass(pack(forwardPassFields().with(key, v)))
		return err
	}
	scheduled := func(key string, v any) error {
		return pass("scheduled_requests", scheduledFields().with(key, v))
	}
	for name, c := range map[string]struct {
		read         func(key string, v any) error
		most, beyond any
	}{
		"published_at":          {envelope, uint64(1 << 48), uint64(1<<48 + 1)},
		"wall_time":             {pass, 1e7, 1e7 + 1},
		"num_prefill_requests":  {scheduled, uint64(1 << 32), uint64(1<<32 + 1)},
		"num_decode_requests":   {scheduled, uint64(1 << 32), uint64(1<<32 + 1)},
		"sum_prefill_tokens":    {scheduled, uint64(1 << 40), uint64(1<<40 + 1)},
		"sum_prefill_kv_tokens": {scheduled, uint64(1 << 40), uint64(1<<40 + 1)},
		"sum_decode_kv_tokens":  {scheduled, uint64(1 << 40), uint64(1<<40 + 1)},
	} {
		if err := c.read(name, c.most); err != nil {
			t.Errorf("%s %v: %v", name, c.most, err)
		}
		if err := c.read(name, c.beyond); !errors.Is(err, errMsgpackRange) {
			t.Errorf("%s %v: %v, want %v", name, c.beyond, err, errMsgpackRange)
		}
	}
}

func TestLimitOfWorkerMetrics(t *testing.T) {
	metrics := func(bytes int) string {
		const sample = "vllm:num_requests_running{engine=\"0\"} 1\n"
		lines := strings.Repeat(sample, bytes/len(sample)-1)
		return lines + strings.TrimSuffix(sample, "\n") + strings.Repeat("0", bytes-len(lines)-len(sample)) + "\n"
	}
	values, err := new(WorkerMetricsReader).Read(strings.NewReader(metrics(512 << 10)))
	if err != nil || len(values) != 1 {
		t.Errorf("512 KiB of samples: %d ranks, %v", len(values), err)
	}
	if _, err := new(WorkerMetricsReader).Read(strings.NewReader(metrics(512<<10 + 1))); !errors.Is(err, ErrTooManySamples) {
		t.Errorf("a byte more: %v, want %v", err, ErrTooManySamples)
	}
	line := func(bytes int) string {
		const start, end = `vllm:num_requests_running{x="`, "\"} 1\n"
		return start + strings.Repeat("x", bytes-len(start)-len(end)) + end
	}
	if values, err := new(WorkerMetricsReader).Read(strings.NewReader(line(32 << 10))); err != nil || len(values) != 1 {
		t.Errorf("a sample of 32 KiB: %d ranks, %v", len(values), err)
	}
	if _, err := new(WorkerMetricsReader).Read(strings.NewReader(line(32<<10 + 1))); !errors.Is(err, ErrWorkerMetrics) {
		t.Errorf("a byte more: %v, want %v", err, ErrWorkerMetrics)
	}
	labelled := func(labels int) string {
		var b strings.Builder
		for i := range labels {
			fmt.Fprintf(&b, "l%d=\"a=b\",", i)
		}
		return "vllm:num_requests_running{" + b.String() + "} 1\n"
	}
	if values, err := new(WorkerMetricsReader).Read(strings.NewReader(labelled(64))); err != nil || len(values) != 1 {
		t.Errorf("64 labels: %d ranks, %v", len(values), err)
	}
	if _, err := new(WorkerMetricsReader).Read(strings.NewReader(labelled(65))); !errors.Is(err, ErrWorkerMetrics) {
		t.Errorf("one more: %v, want %v", err, ErrWorkerMetrics)
	}
}

// TestLimitOfStatsDecoderMemory checks the limits of interned names and of endpoints that
// are kept for the next reply.
func TestLimitOfStatsDecoderMemory(t *testing.T) {
	var d StatsDecoder
	decode := func(service string, endpoints int) {
		t.Helper()
		all := make([]string, endpoints)
		for i := range all {
			all[i] = fmt.Sprintf(`{"subject":"%s.e-%x"}`, service, i+1)
		}
		if _, err := d.Decode(fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"endpoints":[%s]}`, service, strings.Join(all, ","))); err != nil {
			t.Fatal(err)
		}
	}
	most := 0
	for i := range 3000 {
		decode(fmt.Sprintf("service-%d", i), 1)
		most = max(most, len(d.names))
	}
	testutil.Equal(t, "interned names", most, 1024)
	for size, kept := range map[int]bool{64: true, 65: false} {
		d.endpoints = make([]DecodedEndpoint, 0, size)
		decode("service", 1)
		testutil.Equal(t, "kept", cap(d.endpoints) == size, kept)
	}
}

// TestLimitOfBlocks checks the limit in hit-rate events as JSON and as msgpack.
func TestLimitOfBlocks(t *testing.T) {
	for blocks, fits := range map[uint64]bool{1 << 32: true, 1<<32 + 1: false} {
		_, err := ParseHitRate(fmt.Appendf(nil, `{"worker_id":1,"isl_blocks":%d,"overlap_blocks":0}`, blocks))
		_, packed := ParseHitRateMsgpack(pack(pairs{"worker_id", 1, "isl_blocks", blocks, "overlap_blocks", 0}))
		testutil.Equal(t, "accepted", []bool{err == nil, packed == nil}, []bool{fits, fits})
	}
}

func TestLimitOfTransport(t *testing.T) {
	in := fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 1}
	for bytes, fits := range map[int]bool{1024: true, 1025: false} {
		_, err := LayoutV1.ParseValue("dynamo", in, LayoutV1.Value("dynamo", in, strings.Repeat("x", bytes)))
		testutil.Equal(t, "accepted", err == nil, fits)
	}
}

// TestLimitOfNamespacesToValidUTF8 checks that a pattern selects only names that are UTF-8,
// because names from the network become labels.
func TestLimitOfNamespacesToValidUTF8(t *testing.T) {
	for name, matches := range map[string]bool{"lab": true, "lab-ü": true, "lab\xff": false, "": false} {
		for _, n := range []Namespaces{"*", "l*"} {
			testutil.Equal(t, "match", n.Match(name), matches)
		}
		testutil.Equal(t, "Match", Namespaces(name).Match(name), true) // a single namespace comes from the flag
	}
}

// TestLimitOfNames checks the limit for names from every source.
func TestLimitOfNames(t *testing.T) {
	const namespace = "dynamo"
	for bytes, fits := range map[int]bool{256: true, 257: false} {
		name := strings.Repeat("n", bytes)
		read := make(map[string]bool)
		for _, l := range Layouts {
			_, read["component of "+l.Prefix(namespace)] = l.ParseKey(namespace, l.Key(namespace, fleet.Instance{Endpoint: fleet.Endpoint{Component: name, Name: "e"}, ID: 1}))
			_, read["endpoint of "+l.Prefix(namespace)] = l.ParseKey(namespace, l.Key(namespace, fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: name}, ID: 1}))
		}
		_, _, read["component of a subject"] = ParseEventSubject(namespace, "namespace.dynamo.component."+name+".kv_metrics")
		_, _, read["endpoint of a subject"] = ParseEventSubject(namespace, "namespace.dynamo.component.c.endpoint."+name+".kv_metrics")
		_, read["component of a channel"] = ParseChannelKey(namespace, "v1/event_channels/dynamo/"+name+"/kv_metrics/1")
		read["static id"] = ValidStaticID(name)
		_, read["namespace of a key"] = Namespaces("n*").OfKey("v1/instances/" + name + "/c/e/1")
		_, read["namespace of a channel"] = Namespaces("n*").OfKey("v1/event_channels/namespace/" + name + "/topic/kv_metrics/1")
		read["namespace of a subject"] = Namespaces("*").Match(SubjectNamespace("namespace." + name + ".kv_metrics"))
		for what, ok := range read {
			if ok != fits {
				t.Errorf("%s of %d bytes is accepted: %v, want %v", what, bytes, ok, fits)
			}
		}
	}
}
