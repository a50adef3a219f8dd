package mock

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"

	"github.com/google/go-cmp/cmp"
)

// decodeBase64 decodes captured bytes.
func decodeBase64(t *testing.T, captured string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(captured)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func equalBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if diff := cmp.Diff(fmt.Sprintf("%q", want), fmt.Sprintf("%q", got)); diff != "" {
		t.Error("(-want +got)\n", diff)
	}
}

func TestEncodeLoadMatchesCaptures(t *testing.T) {
	for name, c := range map[string]struct {
		release            string
		publisher, seq, at uint64
		topic              string
		worker, blocks     uint64
		want               string
	}{
		"0.9.1 on NATS": {
			"0.9.1", 2228897027003908015, 0, 1795455643078, "kv_metrics", 2228897027003908015, 42,
			"haxwdWJsaXNoZXJfaWTPHu6iCW99/6+oc2VxdWVuY2UArHB1Ymxpc2hlZF9hdM8AAAGiCX7txqV0b3BpY6prdl9tZXRyaWNzp3BheWxvYWTESoSpd29ya2VyX2lkzx7uoglvff+vp2RwX3JhbmsAtGFjdGl2ZV9kZWNvZGVfYmxvY2tzKrVhY3RpdmVfcHJlZmlsbF90b2tlbnPA",
		},
		"1.6.1 with ZMQ": {
			"1.6.1", 6391982293322347, 0, 1795456260589, "kv_metrics", 2228897027003910715, 0,
			"haxwdWJsaXNoZXJfaWTPABa1eVoBCmuoc2VxdWVuY2UArHB1Ymxpc2hlZF9hdM8AAAGiCYhZ7aV0b3BpY6prdl9tZXRyaWNzp3BheWxvYWTEWoWpd29ya2VyX2lkzx7uoglvfgo7p2RwX3JhbmsAtGFjdGl2ZV9kZWNvZGVfYmxvY2tzwLVhY3RpdmVfcHJlZmlsbF90b2tlbnPArmt2X3VzZWRfYmxvY2tzAA==",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := Config{Release: c.release}.release()
			event, known := r.events.load(c.worker, fleet.Load{KVActive: fleet.Some(c.blocks)})
			if !known {
				t.Error("the load is not known")
			}
			equalBytes(t, appendEnvelope(nil, c.publisher, c.seq, time.UnixMilli(int64(c.at)), c.topic, event), decodeBase64(t, c.want))
			if _, known := r.events.load(c.worker, fleet.Load{}); known {
				t.Error("a load without blocks is known")
			}
		})
	}
}

func TestEncodeLoad06MatchesCapture(t *testing.T) {
	l := newLoad(11, 100, 4, 42, 1000, 0.25, 0.4)
	got, known := encodeLoad06(2228897027003908410, l)
	want := `{"worker_id":2228897027003908410,"data":{"worker_stats":{"data_parallel_rank":null,"request_active_slots":11,"request_total_slots":100,` +
		`"num_requests_waiting":4},"kv_stats":{"kv_active_blocks":42,"kv_total_blocks":1000,"gpu_cache_usage_perc":0.25,"gpu_prefix_cache_hit_rate":0.4},"spec_decode_stats":null}}`
	if string(got) != want || !known {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEncodeHitMatchesCaptures(t *testing.T) {
	h := hit{2228897027003908224, 25, 0}
	if got, want := string(encodeHit06(h)), `{"worker_id":2228897027003908224,"dp_rank":0,"isl_blocks":25,"overlap_blocks":0}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	const publisher = 2228897027003907799
	envelope := appendEnvelope(nil, publisher, 1, time.UnixMilli(1795455628126), "kv-hit-rate", encodeHit09(hit{2228897027003907814, 26, 23}))
	got := zmqFrames("kv-hit-rate", publisher, 1, envelope)
	for i, want := range []string{
		"a3YtaGl0LXJhdGU=", "Hu6iCW99/tc=", "AAAAAAAAAAE=",
		"AQAAAIyFrHB1Ymxpc2hlcl9pZM8e7qIJb33+16hzZXF1ZW5jZQGscHVibGlzaGVkX2F0zwAAAaIJfrNepXRvcGljq2t2LWhpdC1yYXRlp3BheWxvYWTEOYSpd29ya2VyX2lkzx7uoglvff7mp2RwX3JhbmsAqmlzbF9ibG9ja3Marm92ZXJsYXBfYmxvY2tzFw==",
	} {
		equalBytes(t, got[i], decodeBase64(t, want))
	}
}

func TestEncodeForwardPassMatchesCapture(t *testing.T) {
	got := encodeForwardPass(2228897027003909783, forwardPass{
		counter: 2, wallTime: 0.0125,
		scheduled: passRequests{1, 128, 64, 11, 672},
		queued:    passRequests{prefill: 4, prefillTokens: 400, decode: 1, decodeKVTokens: 16},
	})
	equalBytes(t, got, decodeBase64(t, ""+
		"h6d2ZXJzaW9uAal3b3JrZXJfaWSzMjIyODg5NzAyNzAwMzkwOTc4M6dkcF9yYW5rAKpjb3VudGVyX2lkAql3YWxsX3RpbWXLP4mZmZmZmZqyc2NoZWR1bGVkX3JlcXVl"+
		"c3Rzh7RudW1fcHJlZmlsbF9yZXF1ZXN0cwGyc3VtX3ByZWZpbGxfdG9rZW5zzICydmFyX3ByZWZpbGxfbGVuZ3RoywAAAAAAAAAAtXN1bV9wcmVmaWxsX2t2X3Rva2Vu"+
		"c0CzbnVtX2RlY29kZV9yZXF1ZXN0cwu0c3VtX2RlY29kZV9rdl90b2tlbnPNAqC0dmFyX2RlY29kZV9rdl90b2tlbnPLAAAAAAAAAACvcXVldWVkX3JlcXVlc3RzhrRu"+
		"dW1fcHJlZmlsbF9yZXF1ZXN0cwSyc3VtX3ByZWZpbGxfdG9rZW5zzQGQsnZhcl9wcmVmaWxsX2xlbmd0aMsAAAAAAAAAALNudW1fZGVjb2RlX3JlcXVlc3RzAbRzdW1f"+
		"ZGVjb2RlX2t2X3Rva2VucxC0dmFyX2RlY29kZV9rdl90b2tlbnPLAAAAAAAAAAA="))
}
