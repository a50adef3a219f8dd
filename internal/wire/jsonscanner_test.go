package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// slowReply decodes a reply with encoding/json. It is the oracle of StatsDecoder.
func slowReply(b []byte, endpoint string) (DecodedReply, error) {
	r, err := ParseStatsReply(b)
	if err != nil {
		return DecodedReply{}, err
	}
	a := DecodedReply{Service: r.Service, ID: []byte(r.ID), Endpoints: []DecodedEndpoint{}}
	for _, e := range r.Endpoints {
		name, lease, _ := SplitSubject(r.Service, e.Subject, func(s string) bool { return s == endpoint })
		load, rank, ok, err := ParseLoad(e.Data)
		answer := DecodedEndpoint{Subject: []byte(e.Subject), Name: name, Lease: lease, Outcome: fleet.NoLoad, Load: load, Rank: rank, Err: err}
		if ok {
			answer.Outcome = fleet.Reported
		}
		if err != nil {
			answer.Outcome = fleet.Malformed
		}
		a.Endpoints = append(a.Endpoints, answer)
	}
	return a, nil
}

// errorText returns an error as text.
func errorText(err error) string { return fmt.Sprint(err) }

// checkReply checks that d and encoding/json decode a reply in the same way. D may have
// decoded others before.
func checkReply(t *testing.T, d *StatsDecoder, b []byte) {
	t.Helper()
	want, wantErr := slowReply(b, d.Endpoint)
	got, err := d.Decode(b)
	testutil.Equal(t, "error", errorText(err), errorText(wantErr))
	if err != nil || wantErr != nil {
		return
	}
	texts := func(r DecodedReply) (all []string) {
		for _, e := range r.Endpoints {
			all = append(all, fmt.Sprintf("%q %q %x %d %d %v", e.Subject, e.Name, e.Lease, e.Outcome, e.Rank, e.Err))
		}
		return append(all, fmt.Sprintf("%q %q", r.Service, r.ID))
	}
	testutil.Equal(t, "reply", texts(got), texts(want))
	for i := range want.Endpoints {
		testutil.Equal(t, "load", got.Endpoints[i].Load, want.Endpoints[i].Load)
	}
}

func checkHitRate(t *testing.T, b []byte) {
	t.Helper()
	want, wantErr := unmarshalHitRate(b)
	got, err := ParseHitRate(b)
	testutil.Equal(t, "result", got, want)
	testutil.Equal(t, "error", errorText(err), errorText(wantErr))
}

func checkLoadEvent(t *testing.T, b []byte) {
	t.Helper()
	var want, got loadEventFields
	err := want.unmarshal(b)
	if got.scan(b) {
		testutil.Equal(t, "err", err, nil)
		if got != want {
			t.Errorf("the scanner reads %+v from %s, want %+v", got, b, want)
		}
	}
}

func TestStatsDecoderScansCaptures(t *testing.T) {
	d := StatsDecoder{Endpoint: "generate"}
	for _, file := range append(capturedReplies(t), "original/stats_reply_1.json", "original/stats_reply_2.json", "original/stats_reply_3.json") {
		t.Run(file, func(t *testing.T) {
			b := testutil.Captured(t, file)
			if _, _, ok := d.scan(b); !ok {
				t.Error("the scanner does not read the reply")
			}
			checkReply(t, &d, b)
			for n := range b {
				if _, _, ok := d.scan(b[:n]); ok {
					t.Errorf("the first %d of %d bytes are accepted", n, len(b))
				}
			}
		})
	}
}

func TestJSONScannerReadsCapturedEvents(t *testing.T) {
	for _, release := range []string{"0.5.1", "0.6.1", "0.7.1", "0.8.1"} {
		for _, m := range natsEvents(t, release) {
			switch {
			case strings.HasSuffix(m.subject, "."+TopicLoad):
				var v loadEventFields
				if !v.scan(m.data) {
					t.Errorf("%s: the scanner does not read %s", release, m.data)
				}
				checkLoadEvent(t, m.data)
			case strings.HasSuffix(m.subject, ".kv-hit-rate"):
				if _, ok := scanHitRate(m.data); !ok {
					t.Errorf("%s: the scanner does not read %s", release, m.data)
				}
				checkHitRate(t, m.data)
			}
		}
	}
}

func TestJSONScannerLeavesAmbiguousJSON(t *testing.T) {
	const head = `{"type":"io.nats.micro.v1.stats_response","name":"svc","id":"x","endpoints":[{"subject":"svc.e-1f","data":`
	for name, c := range map[string]struct {
		data string // of an endpoint
		sure bool
	}{
		"in order":                       {`{"worker_stats":{"request_active_slots":1},"kv_stats":{"kv_active_blocks":2}}`, true},
		"in another order":               {`{"kv_stats":{"kv_active_blocks":2},"worker_stats":{"request_active_slots":1}}`, true},
		"with spaces":                    {"\n{ \"kv_active_blocks\" :\t1 ,\r\n\"later\" : [ 1 , { } ] }", true},
		"fields of another release":      {`{"kv_active_blocks":1,"later":{"a":[null,true,false,-1.5e+3,"x",{"b":[]}]}}`, true},
		"a capital":                      {`{"KV_active_blocks":1}`, false},
		"a capital after it":             {`{"kv_active_blocks":1,"kv_Active_blocks":2}`, false},
		"a letter that folds":            {"{\"\u212av_active_blocks\":1}", false}, // the Kelvin sign
		"an escape in a key":             {`{"kv_active\u005fblocks":1}`, false},
		"a field twice":                  {`{"kv_active_blocks":1,"kv_active_blocks":2}`, false},
		"a field twice, null":            {`{"kv_active_blocks":1,"kv_active_blocks":null}`, false},
		"a part twice":                   {`{"kv_stats":{"kv_active_blocks":1},"kv_stats":null}`, false},
		"a part twice, null first":       {`{"kv_stats":null,"kv_stats":{"kv_active_blocks":1}}`, false},
		"both shapes":                    {`{"request_active_slots":1,"kv_stats":{"kv_active_blocks":1}}`, false},
		"both shapes, an empty part":     {`{"request_active_slots":1,"worker_stats":{}}`, false},
		"a field in the wrong part":      {`{"worker_stats":{"kv_active_blocks":1},"kv_stats":{"kv_active_blocks":2}}`, false},
		"a part in a part":               {`{"worker_stats":{"kv_stats":{"kv_active_blocks":1},"request_active_slots":1}}`, false},
		"spec decode outside its object": {`{"num_drafts":1,"kv_active_blocks":1}`, false},
		"a rank above 32 bits":           {`{"data_parallel_rank":4294967296,"kv_active_blocks":1}`, false},
		"2^64":                           {`{"kv_active_blocks":18446744073709551616}`, false},
		"2^64-1":                         {`{"kv_active_blocks":18446744073709551615}`, true},
		"a wrapped count":                {`{"kv_active_blocks":28446744073709551616}`, false},
		"a zero before a count":          {`{"kv_active_blocks":01}`, false},
		"a minus zero":                   {`{"kv_active_blocks":-0}`, false},
		"a float for a count":            {`{"kv_active_blocks":1.0}`, false},
		"a fraction beyond float64":      {`{"gpu_cache_usage_perc":1e400}`, false},
		"a fraction without a digit":     {`{"gpu_cache_usage_perc":1.}`, false},
		"no field":                       {`{}`, false},
		"an extra comma":                 {`{"kv_active_blocks":1,}`, false},
		"an extra comma, in an array":    {`{"kv_active_blocks":1,"a":[1,]}`, false},
		"no comma":                       {`{"later":1 "kv_active_blocks":1}`, false},
		"no comma, in an array":          {`{"kv_active_blocks":1,"a":[1 2]}`, false},
		"no colon":                       {`{"kv_active_blocks" 1}`, false},
		"text that is not ASCII":         {`{"kv_active_blocks":1,"a":"ü"}`, true},
		"text that is not UTF-8":         {"{\"kv_active_blocks\":1,\"a\":\"\xff\"}", true},
		"an escape":                      {`{"kv_active_blocks":1,"a":"\n\\\"\/"}`, true},
		"an escape in hexadecimal":       {`{"kv_active_blocks":1,"a":"\u000a"}`, false},
		"an escape of nothing":           {`{"kv_active_blocks":1,"a":"\q"}`, false},
		"an escape of the end":           {`{"kv_active_blocks":1,"a":"\`, false},
		"a control character":            {"{\"kv_active_blocks\":1,\"a\":\"\x1f\"}", false},
		"deep":                           {`{"kv_active_blocks":1,"a":[[[[[[[[[[]]]]]]]]]]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := loadFields{Load: new(fleet.Load), lastKey: -1}
			s := jsonScanner(c.data)
			if sure := s.atEnd(f.scan(s, s.skipSpace(0))) && *f.Load != (fleet.Load{}); sure != c.sure {
				t.Errorf("the scanner reads the load: %v, want %v", sure, c.sure)
			}
			checkReply(t, new(StatsDecoder), []byte(head+c.data+"}]}"))
			checkLoadEvent(t, []byte(`{"worker_id":1,"data":`+c.data+"}"))
		})
	}
}

func TestStatsDecoderKeepsNoStateBetweenReplies(t *testing.T) {
	d := StatsDecoder{Endpoint: "generate"}
	for _, b := range [][]byte{
		testutil.Captured(t, "0.5.1/stats_reply_2.json"),
		testutil.Captured(t, "0.5.1/edge/no_endpoints.json"),
		[]byte(`{"type":"io.nats.micro.v1.stats_response","name":"a","endpoints":[{},{"subject":"b.c-1"},{"data":{}}]}`),
		testutil.Captured(t, "0.2.1/edge/static_1.json"),
		[]byte(`{"type":"io.nats.micro.v1.stats_response","name":"\u0061","endpoints":[null,{"subject":"a.\u0062-1"},{"subject":"a.c","data":5}]}`),
		testutil.Captured(t, "0.1.1/stats_reply_3.json"),
		[]byte(`{"type":"io.nats.micro.v1.stats_response","name":"a","endpoints":[` + strings.Repeat(`{"subject":"a.e"},`, 1000) + `{}]}`),
		testutil.Captured(t, "0.5.1/edge/spec_and_rank.json"),
		{},
		testutil.Captured(t, "0.3.2/stats_reply_1.json"),
	} {
		checkReply(t, &d, b)
	}
}

func TestStatsDecoderLimitsInternedNames(t *testing.T) {
	var d StatsDecoder
	for i := range 3 * maxInternedNames {
		service := fmt.Sprintf("svc%d", i)
		checkReply(t, &d, fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"endpoints":[{"subject":"%s.e-1"}]}`, service, service))
	}
	long := strings.Repeat("x", maxName+1)
	checkReply(t, &d, fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"endpoints":[{"subject":"%s.e-1"}]}`, long, long))
	if _, ok := d.names[long]; ok || len(d.names) > maxInternedNames {
		t.Errorf("%d names are interned, a long one: %v", len(d.names), ok)
	}
}

func TestStatsDecoderStringsOutliveInput(t *testing.T) {
	var d StatsDecoder
	b := bytes.Clone(testutil.Captured(t, "0.5.1/stats_reply_1.json"))
	a, err := d.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	service, name := a.Service, a.Endpoints[0].Name
	clear(b)
	_, _ = d.Decode(testutil.Captured(t, "0.2.1/edge/static_1.json"))
	testutil.Equal(t, "service and name", service+"."+name, "dynamo_backend.generate")
}

func FuzzStatsDecoder(f *testing.F) {
	for _, file := range capturedReplies(f) {
		f.Add(testutil.Captured(f, file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := StatsDecoder{Endpoint: "generate"}
		checkReply(t, &d, b)
		checkReply(t, &d, b) // again, with the state that the first reply left
	})
}

// FuzzJSONScanner checks that the scanner and encoding/json agree on JSON that is close to
// what workers send. The fuzzer's bytes choose the parts of a text, most of them valid.
func FuzzJSONScanner(f *testing.F) {
	random := rand.New(rand.NewPCG(5, 5))
	for range 2000 {
		f.Add(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, random.Uint64()), random.Uint64()))
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		c := chooser{choices: choices}
		switch c.choose(3) {
		case 0:
			checkHitRate(t, c.object(keyList{`"worker_id":`, `"dp_rank":`, `"isl_blocks":`, `"overlap_blocks":`}, 2*c.choose(2)))
		case 1:
			checkLoadEvent(t, c.object(loadEventKeys, 3))
		default:
			checkReply(t, &StatsDecoder{Endpoint: "e-1f"}, c.reply())
		}
	})
}

// chooser generates text that is JSON or close to it.
type chooser struct{ choices []byte }

// choose returns a number below n, or 0 when no choices are left.
func (c *chooser) choose(n int) int {
	if len(c.choices) == 0 {
		return 0
	}
	b := int(c.choices[0])
	c.choices = c.choices[1:]
	return b % n
}

// reply generates a reply to a stats poll.
func (c *chooser) reply() []byte {
	b := []byte(`{"type":"io.nats.micro.v1.stats_response","name":"svc"`)
	for range c.choose(4) {
		b = append(append(b, ','), c.member(replyKeys[c.choose(len(replyKeys))], 3)...)
	}
	b = append(b, `,"endpoints":[`...)
	for i := range c.choose(4) {
		if i > 0 {
			b = append(b, c.comma()...)
		}
		b = append(b, c.object(endpointKeys, 4)...)
	}
	return append(b, "]}"...)
}

// object generates an object with some consecutive keys, most of them in order.
func (c *chooser) object(of keyList, depth int) []byte {
	b := []byte("{")
	first := c.choose(len(of))
	for i := range c.choose(8) {
		if i > 0 {
			b = append(b, c.comma()...)
		}
		if c.choose(8) == 1 {
			first = c.choose(len(of))
		}
		b = append(b, c.member(of[(first+i)%len(of)], depth)...)
	}
	return append(b, c.pick("}", "}", "}", "}", "} ", "}", "}", ",}")...)
}

func (c *chooser) member(key string, depth int) []byte {
	switch c.choose(16) {
	case 1:
		key = strings.ToUpper(key)
	case 2:
		key = strings.Replace(key, "s", "ſ", 1)
	case 3:
		key = strings.Replace(key, "k", "\u212a", 1)
	case 4:
		key = c.pick(`"later":`, `"num_requests":`, `"":`, `"type" :`, `"subject\u0000":`, "\"a\xff\":", `"worker_stat":`, `"data": `)
	case 5:
		key = strings.Replace(key, "_", `\u005f`, 1)
	}
	return append([]byte(key), c.value(depth)...)
}

func (c *chooser) value(depth int) []byte {
	if depth > 0 {
		switch c.choose(6) {
		case 0, 1, 2:
			return c.object(loadKeys, depth-1)
		case 3:
			return fmt.Appendf(nil, "[%s%s%s]", c.value(depth-1), c.comma(), c.value(depth-1))
		}
	}
	return []byte(c.pick(
		"1", "0", "null", "0.5", `"svc.e-1f"`, "18446744073709551615", "18446744073709551616", "4294967295", "4294967296", "4294967297",
		"9999999999999999999", "10000000000000000000", "27446744073709551616", "99999999999999999999", "111111111111111111111",
		"-1", "-0", "1.0", "1e3", "1E-2", "01", "1.", ".5", "1e400", "+1", "-", "0.4000000059604645", "5e-324", "true", "false", "nul", "NaN",
		`""`, `"svc"`, `"svc.\u0065"`, `"sv`, `"ü"`, "\"\xff\"", "\"\x00\"", "\"\t\"", `"\q"`, `"a\"b"`, `"\\"`, `"\\\"`, `"ü\n\/é`, `"svc.e-0"`, `"io.nats.micro.v1.stats_response"`,
		"{}", "[]", "[[[[[[[[[[[[1]]]]]]]]]]]]", " 7 ", "\n7\r",
	))
}

func (c *chooser) comma() string {
	if c.choose(16) != 1 {
		return ","
	}
	return c.pick(" , ", ",,", " ", "", "\t,")
}

func (c *chooser) pick(of ...string) string { return of[c.choose(len(of))] }

func TestJSONScannerSkipPlainStopsAtSpecialByte(t *testing.T) {
	for first := range 20 {
		for a := range 256 {
			for _, after := range []byte{'"', '\\', '\x1f', ' ', '\x7f', 0x80, 0xff, 'a'} {
				b := bytes.Repeat([]byte{'a'}, 20)
				if first+1 < len(b) {
					b[first+1] = after
				}
				b[first] = byte(a)
				want := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' || r > 0x7f || r == '"' || r == '\\' })
				if want < 0 {
					want = len(b)
				}
				if got := jsonScanner(b).skipPlain(0); got != want {
					t.Fatalf("skipPlain of %q = %d, want %d", b, got, want)
				}
			}
		}
	}
}
