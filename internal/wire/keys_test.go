package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

func instance(component, endpoint string, id uint64) fleet.Instance {
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: endpoint}, ID: id}
}

func TestLayoutWritesCapturedRegistrations(t *testing.T) {
	for _, r := range releases {
		t.Run(r.name, func(t *testing.T) {
			keys := make(map[string]string)
			for _, kv := range testutil.CapturedJSON[[]struct{ Key, Value string }](t, r.name, "etcd_keys.json") {
				keys[kv.Key] = kv.Value
			}
			written := make(map[string]string)
			for _, w := range testutil.CapturedJSON[[]capturedWorker](t, r.name, "workers.json") {
				service := ServiceName(r.era, w.Namespace, w.Component)
				for _, endpoint := range w.Endpoints {
					in := instance(w.Component, endpoint, w.LeaseID)
					subject := Subject(service, endpoint, w.LeaseID)
					written[r.layout.Key(w.Namespace, in)] = string(r.layout.Value(w.Namespace, in, subject))
				}
			}
			testutil.Equal(t, "written", written, keys)
		})
	}
}

func TestLayoutReadsCapturedRegistrations(t *testing.T) {
	for _, r := range releases {
		t.Run(r.name, func(t *testing.T) {
			want := make(map[fleet.Instance]bool)
			for _, w := range testutil.CapturedJSON[[]capturedWorker](t, r.name, "workers.json") {
				for _, endpoint := range w.Endpoints {
					want[instance(w.Component, endpoint, w.LeaseID)] = true
				}
			}
			got := make(map[fleet.Instance]bool)
			for _, kv := range testutil.CapturedJSON[[]struct{ Key, Value string }](t, r.name, "etcd_keys.json") {
				in, ok := r.layout.ParseKey("dynamo", kv.Key)
				if !ok {
					t.Errorf("ParseKey(%q) is not ok", kv.Key)
				}
				if err := checkValue(r.layout, "dynamo", in, []byte(kv.Value)); err != nil {
					t.Errorf("ParseValue of %s: %v", kv.Key, err)
				}
				got[in] = true
			}
			testutil.Equal(t, "result", got, want)
		})
	}
}

func TestLayoutKeyKeepsUnusualNames(t *testing.T) {
	for _, r := range []struct {
		release string
		layout  Layout
		lease   uint64 // of the first component's worker; it grows by 6 from worker to worker
	}{
		{"0.1.1", LayoutComponents, 0x7d7ba2096ef2460a},
		{"0.2.1", LayoutComponents, 0x7d7ba2096ef24128},
		{"0.5.1", LayoutInstances, 0x7d7ba2096ef2448a},
	} {
		for i, c := range testutil.CapturedJSON[[]capturedName](t, r.release, "edge", "names.json") {
			for j, endpoint := range []string{"My-End.point", "load_metrics"} {
				want := instance(c.Component, endpoint, r.lease+6*uint64(i))
				testutil.Equal(t, "key", r.layout.Key(c.Namespace, want), c.Etcd[j])
				got, ok := r.layout.ParseKey(c.Namespace, c.Etcd[j])
				if got != want || !ok {
					t.Errorf("ParseKey(%q) = %+v, %v, want %+v, true", c.Etcd[j], got, ok, want)
				}
			}
		}
	}
}

func TestLayoutKeyAndValueRoundTrip(t *testing.T) {
	for _, l := range Layouts {
		for _, in := range []fleet.Instance{
			instance("backend", "generate", 1),
			instance("backend", "generate", math.MaxUint64),
			instance("backend", "generate", 1<<63+1),
			instance("backend", "a:b", 0x1f),
			instance("backend", "a/b", 0x1f),
			instance("backend", "generate:1f", 0x1f),
			instance("components", "instances", 0x1f),
			instance("über", "日本", 0x1f),
			instance(`quo"te\`, "<a&b>\u2028", 0x1f),
		} {
			key := l.Key("ns", in)
			if got, ok := l.ParseKey("ns", key); got != in || !ok {
				t.Errorf("ParseKey(%q) = %+v, %v, want %+v, true", key, got, ok, in)
			}
			if err := checkValue(l, "ns", in, l.Value("ns", in, "svc.e")); err != nil {
				t.Errorf("ParseValue of %q: %v", key, err)
			}
		}
	}
}

func TestLayoutParseKeyRejectsNonEndpoints(t *testing.T) {
	for _, l := range Layouts {
		for _, rest := range []string{
			"",
			"/",
			":",
			"backend",
			"backend/generate",
			"backend/generate:",
			"backend/generate:1G",
			"backend/generate:00",
			"backend/generate:0",
			"backend/generate:0x1f",
			"backend/generate:-1f",
			"backend/generate:+1f",
			"backend/generate:10000000000000000",
			"backend/generate:1f ",
			"backend/generate:generate",
			"backend/:1f",
			"/generate:1f",
			"generate:1f",
			"backend\xff/generate:1f",
			"backend/gen\xfferate:1f",
			"metrics/instance",
		} {
			key := l.Prefix("dynamo") + strings.ReplaceAll(rest, ":", string(l.separator()))
			if in, ok := l.ParseKey("dynamo", key); ok {
				t.Errorf("ParseKey(%q) = %+v, want it rejected", key, in)
			}
		}
	}
}

func TestLayoutParseKeyRejectsOtherNamespaces(t *testing.T) {
	for _, key := range []string{
		"",
		"mdc/tiny",
		"models/04ec71f3-702c-4f15-bfcb-a3eed8bf7dd9",
		"kv_routers/edge/backend/7b361a09-bb9e-4c84-8560-5c5e96b3c875",
		"dynamo2/components/backend/generate:1f",
		"instances/dynamo2/backend/generate:1f",
		"instances/dynam/backend/generate:1f",
		"v1/instances/dynamo2/backend/generate/1f",
		"v1/instances/dynam/backend/generate/1f",
		"v1/mdc/dynamo/backend/generate/1f",
		"Dynamo/components/backend/generate:1f",
	} {
		for _, l := range Layouts {
			if in, ok := l.ParseKey("dynamo", key); ok {
				t.Errorf("ParseKey(%q) = %+v, want it rejected", key, in)
			}
		}
	}
}

func TestLayoutParseKeyRejectsOtherLayouts(t *testing.T) {
	in := instance("backend", "generate", 0x1f)
	for _, l := range Layouts {
		for _, other := range Layouts {
			if _, ok := other.ParseKey("dynamo", l.Key("dynamo", in)); ok != (l == other) {
				t.Errorf("layout %d reads a key of layout %d: %v", other, l, ok)
			}
		}
	}
}

func TestLeaderKeyIsTheOriginals(t *testing.T) {
	testutil.Equal(t, "LeaderKey", LeaderKey("dynamo"), "dynamo/components/metrics/instance")
}

func TestLayoutParseValueRejectsOtherWorkers(t *testing.T) {
	in := instance("backend", "generate", 0x1f)
	for _, l := range Layouts {
		idField := map[Layout]string{LayoutComponents: "lease_id", LayoutInstances: "instance_id", LayoutV1: "instance_id"}[l]
		value := func(namespace, component, endpoint, idField string, id uint64) string {
			return fmt.Sprintf(`{"namespace":%q,"component":%q,"endpoint":%q,%q:%d}`, namespace, component, endpoint, idField, id)
		}
		if err := checkValue(l, "dynamo", in, []byte(value("dynamo", "backend", "generate", idField, 0x1f))); err != nil {
			t.Errorf("ParseValue of its own value: %v", err)
		}
		for name, value := range map[string]string{
			"another namespace": value("dynamo2", "backend", "generate", idField, 0x1f),
			"another component": value("dynamo", "backend2", "generate", idField, 0x1f),
			"another endpoint":  value("dynamo", "backend", "generate2", idField, 0x1f),
			"another id":        value("dynamo", "backend", "generate", idField, 0x1e),
			"no id":             `{"namespace":"dynamo","component":"backend","endpoint":"generate"}`,
			"nothing":           `{}`,
			"null":              `null`,
			"the id field of the other layout": value("dynamo", "backend", "generate",
				map[Layout]string{LayoutComponents: "instance_id", LayoutInstances: "lease_id", LayoutV1: "lease_id"}[l], 0x1f),
		} {
			if err := checkValue(l, "dynamo", in, []byte(value)); !errors.Is(err, ErrMismatch) {
				t.Errorf("layout %d, %s: ParseValue = %v, want %v", l, name, err, ErrMismatch)
			}
		}
	}
}

func TestLayoutParseValueDistinguishesBadJSONFromMismatch(t *testing.T) {
	in := instance("backend", "generate", 0x1f)
	for _, l := range Layouts {
		for _, value := range []string{"", "{", "[]", `"x"`, "\xff", `{"lease_id":-1}`, `{"instance_id":"31"}`, `{"component":5}`} {
			if err := checkValue(l, "dynamo", in, []byte(value)); err == nil || errors.Is(err, ErrMismatch) {
				t.Errorf("layout %d: ParseValue(%q) = %v, want a decoding error", l, value, err)
			}
		}
	}
}

func TestLayoutV1ReadsCaptures(t *testing.T) {
	const backend, generate = "backend", "generate"
	for release, want := range map[string][]fleet.Instance{
		"0.6.1": {instance(backend, generate, 0x1eeea2096f7e0080), instance(backend, generate, 0x1eeea2096f7e0082)},
		"0.9.1": {instance(backend, generate, 0x1eeea2096f7dffaf), instance(backend, generate, 0x1eeea2096f7dffb3)},
		"1.6.1": {
			instance(backend, generate, 0x1eeea2096f7e0a32), instance(backend, generate, 0x1eeea2096f7e0a3b),
			instance(backend, "worker_kv_query_source_1bd98c761f1568", 0x1eeea2096f7e0a3b),
			instance(backend, "worker_kv_query_source_b2467324522d", 0x1eeea2096f7e0a32),
		},
	} {
		t.Run(release, func(t *testing.T) {
			var got []fleet.Instance
			for _, kv := range etcdKeys(t, release, LayoutV1.Prefix("lab")) {
				in, ok := LayoutV1.ParseKey("lab", kv.Key)
				if !ok {
					t.Errorf("ParseKey(%q) is not ok", kv.Key)
				}
				testutil.Equal(t, "Key", LayoutV1.Key("lab", in), kv.Key)
				if err := checkValue(LayoutV1, "lab", in, []byte(kv.Value)); err != nil {
					t.Errorf("ParseValue of %s: %v", kv.Key, err)
				}
				got = append(got, in)
			}
			testutil.Equal(t, "result", got, want)
		})
	}
}

func TestLayoutV1WritesCaptures(t *testing.T) {
	for _, kv := range etcdKeys(t, "1.6.1", LayoutV1.Prefix("lab")) {
		in, _ := LayoutV1.ParseKey("lab", kv.Key)
		var v struct{ Transport struct{ TCP string } }
		if err := json.Unmarshal([]byte(kv.Value), &v); err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "Value", string(LayoutV1.Value("lab", in, v.Transport.TCP)), kv.Value)
		registration, _ := LayoutV1.ParseValue("lab", in, []byte(kv.Value))
		testutil.Equal(t, "registration", registration, fleet.Registration{Publishes: true, Transport: v.Transport.TCP})
	}
	// 0.6 writes the value of 0.5 under the new key.
	for _, kv := range etcdKeys(t, "0.6.1", LayoutV1.Prefix("lab")) {
		in, _ := LayoutV1.ParseKey("lab", kv.Key)
		subject := Subject(ServiceName(EraPlain, "lab", in.Component), in.Name, in.ID)
		testutil.Equal(t, "Value", string(LayoutInstances.Value("lab", in, subject)), kv.Value)
	}
}

func TestLayoutParseValueRejectsOtherTypes(t *testing.T) {
	in := instance("backend", "generate", 0x1f)
	for kind, fits := range map[string]bool{"Endpoint": true, "": true, "Model": false, "EventChannel": false, "endpoint": false} {
		value := fmt.Sprintf(`{"type":%q,"namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":31}`, kind)
		if err := checkValue(LayoutV1, "dynamo", in, []byte(value)); errors.Is(err, ErrMismatch) == fits {
			t.Errorf("ParseValue of type %q: %v", kind, err)
		}
	}
}

func TestCheckKindReportsUnknownKinds(t *testing.T) {
	for _, kind := range []string{"VeloPeer", "MetricsEndpoint", "EventSource", "endpoint", "Ω"} {
		value := fmt.Appendf(nil, `{"type":%q,"namespace":"lab","component":5,"worker_id":31}`, kind)
		if err := CheckKind(value); !errors.Is(err, ErrUnknownKind) {
			t.Errorf("CheckKind of %s = %v", kind, err)
		}
	}
	for _, value := range []string{"", "{", `{"type":5}`, `{"type":""}`, `{"type":"Endpoint"}`, `{"type":"Model"}`, `{"type":"EventChannel"}`, "null", "[]"} {
		if err := CheckKind([]byte(value)); err != nil {
			t.Errorf("CheckKind(%s) = %v", value, err)
		}
	}
}

// checkValue returns the error of ParseValue.
func checkValue(l Layout, namespace string, in fleet.Instance, value []byte) error {
	_, err := l.ParseValue(namespace, in, value)
	return err
}
