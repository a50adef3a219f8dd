package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire/wiretest"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// openAPIDoc is openapi.json, against which responses are checked.
type openAPIDoc struct {
	t        *testing.T
	doc      map[string]any
	compiler *jsonschema.Compiler
	seen     map[string]bool // fields that responses had, by schema
}

func loadOpenAPI(t *testing.T) *openAPIDoc {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	d := &openAPIDoc{t: t, doc: doc.(map[string]any), compiler: jsonschema.NewCompiler(), seen: make(map[string]bool)}
	forbidExtraFields(d.doc["components"])
	d.compiler.DefaultDraft(jsonschema.Draft2020) // OpenAPI 3.1 uses this draft
	if err := d.compiler.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return d
}

// forbidExtraFields makes the schemas forbid fields that they do not describe.
func forbidExtraFields(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, fields := v["properties"].(map[string]any); fields {
			v["additionalProperties"] = false
		}
		for _, e := range v {
			forbidExtraFields(e)
		}
	case []any:
		for _, e := range v {
			forbidExtraFields(e)
		}
	}
}

// check fails the test unless the response matches the schema with this name.
func (d *openAPIDoc) check(schema string, answer []byte) {
	d.t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer))
	if err != nil {
		d.t.Fatalf("%v in %s", err, answer)
	}
	s, err := d.compiler.Compile("openapi.json#/components/schemas/" + schema)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := s.Validate(v); err != nil {
		d.t.Errorf("%s: %v in %.2000s", schema, err, answer)
	}
	d.markSeen(schema, d.schema(schema), v)
}

func (d *openAPIDoc) schema(name string) map[string]any {
	return d.doc["components"].(map[string]any)["schemas"].(map[string]any)[name].(map[string]any)
}

// markSeen records which described fields the value has.
func (d *openAPIDoc) markSeen(name string, schema map[string]any, v any) {
	if ref, ok := schema["$ref"].(string); ok {
		name = ref[strings.LastIndexByte(ref, '/')+1:]
		schema = d.schema(name)
	}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if items, ok := schema["items"].(map[string]any); ok {
				d.markSeen(name, items, e)
			}
		}
	case map[string]any:
		fields, _ := schema["properties"].(map[string]any)
		for field, value := range v {
			d.seen[name+"."+field] = true
			if of, ok := fields[field].(map[string]any); ok {
				d.markSeen(name+"."+field, of, value)
			} else if of, ok := schema["additionalProperties"].(map[string]any); ok {
				d.markSeen(name, of, value)
			}
		}
	}
}

// unseen returns the described fields that no response had.
func (d *openAPIDoc) unseen() (all []string) {
	var walk func(name string, schema map[string]any)
	walk = func(name string, schema map[string]any) {
		fields, _ := schema["properties"].(map[string]any)
		for field, of := range fields {
			if !d.seen[name+"."+field] {
				all = append(all, name+"."+field)
			}
			of := of.(map[string]any)
			walk(name+"."+field, of)
			if items, ok := of["items"].(map[string]any); ok {
				walk(name+"."+field, items)
			}
		}
	}
	for name := range d.doc["components"].(map[string]any)["schemas"].(map[string]any) {
		walk(name, d.schema(name))
	}
	slices.Sort(all)
	return all
}

// TestOpenAPIDescribesEveryAnswer checks responses of all kinds of fleets. They have no field
// that is not described, they lack no required field, and every described field is in one of
// them.
func TestOpenAPIDescribesEveryAnswer(t *testing.T) {
	d := loadOpenAPI(t)
	check := func(h *harness) {
		d.check("Snapshot", h.request("GET", "/api/v1/fleet?history=true").Body.Bytes())
		for _, w := range h.snapshot().Workers {
			d.check("WorkerHistory", h.request("GET", "/worker?key="+w.Key).Body.Bytes())
		}
		for _, e := range h.snapshot().Endpoints {
			w := h.request("GET", "/api/v1/signals?component="+e.Component+"&endpoint="+e.Endpoint)
			d.check(map[bool]string{true: "Signals", false: "Error"}[w.Code == 200], w.Body.Bytes())
		}
	}
	inBubble(t, func(h *harness) { // all releases
		for _, release := range []string{"0.1.1", "0.3.0", "0.5.1"} {
			h.setReplies(append(h.replies, wiretest.RegisterPolledRelease(h.t, h.fleet, release)...)...)
		}
		for _, release := range []string{"0.6.1", "0.9.1", "1.6.1"} {
			wiretest.RegisterPublishingRelease(h.t, h.fleet, release)
		}
		h.fleet.RecordHit(9041998838276177450, 100, 30)
		h.ticks(10 * time.Second)
		check(h)
	})
	inBubble(t, func(h *harness) { // every kind of problem
		f := fleet.New(fleet.Target{}, 10_000, true)
		f.Sync(fleet.Listing{})
		h.use(f, func(o *monitor.Options) { o.Limit = 3 }) // rows with a history
		h.registerPolled(generate, 1, 2, 3)
		h.registerPublishing(generate, 4)
		for rank := range uint32(2) {
			h.fleet.RecordForwardPass(fleet.Origin{Endpoint: generate, Worker: 4, Rank: rank}, fleet.Pass{Counter: 1, Running: 1, QueuedTokens: 5})
		}
		h.setReplies(pollReply(generate, 1, 900, 9), pollReply(generate, 2, 0, 0), pollReply(generate, 3, 900, 9))
		h.ticks(time.Minute)
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 3})
		h.setReplies(malformedReply(generate, 1), pollReply(generate, 3, 900, 9))
		h.fleet.Stats.MissedEvents.Add(1)
		h.fleet.Stats.ZMQ.MarkUsed()
		h.fleet.Stats.NATS.SetConnected(false)
		h.ticks(time.Minute)
		check(h)
	})
	inBubble(t, func(h *harness) { // no workers, then two with another name
		f := fleet.New(fleet.Target(generate), 10, true)
		h.use(f, nil)
		f.Stats.Etcd.SetConnected(false)
		f.Stats.Etcd.SetError("connection refused")
		h.monitor.Sample(time.Now())
		check(h)
		f.Stats.Etcd.SetConnected(true)
		f.Sync(fleet.Listing{})
		h.registerPolled(fleet.Endpoint{Component: "back_end", Name: "generate"}, 1, 2)
		h.tick()
		check(h)
		for _, path := range []string{"/worker", "/api/v1/signals", "/api/none"} {
			d.check("Error", h.request("GET", path).Body.Bytes())
		}
	})
	inBubble(t, func(h *harness) { // several namespaces, and workers with their own metrics
		h.watchNamespaces("lab-*")
		of := fleet.Endpoint{Namespace: "lab-1", Component: "backend", Name: "generate"}
		h.fleet.Register("", fleet.Instance{Endpoint: of, ID: 7}, fleet.Registration{Publishes: true, Metrics: "10.0.4.19:9090"})
		h.fleet.RecordScrape(h.fleet.ScrapeTargets(false)[0], []fleet.ScrapedValues{{Load: fleet.Load{KVTotal: u(1000), CacheUsage: fleet.Some(0.25)}}})
		h.ticks(5 * time.Second)
		check(h)
		h.fleet.Stats.NATS.SetConnected(false)
		h.fleet.Diagnostics.SetSubjects([]fleet.Subject{{Name: "namespace.*.kv-hit-rate", Required: true, Refused: true}})
		h.tick()
		check(h)
		w := h.request("GET", targetsPath)
		var all []json.RawMessage
		if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil || len(all) != 1 {
			t.Fatalf("targets %s: %v", w.Body, err)
		}
		d.check("Target", all[0])
	})
	inBubble(t, func(h *harness) { // more problems than there is room for
		for n := range uint64(201) {
			h.registerPolled(fleet.Endpoint{Component: fmt.Sprint("c", n), Name: "generate"}, n+1)
		}
		h.ticks(20 * time.Second)
		d.check("Snapshot", h.request("GET", "/api/v1/fleet").Body.Bytes())
	})
	testutil.Equal(t, "fields that are described and in no response", d.unseen(), nil)
}

// targetsPath is the one path that is described although its parameters are not checked.
const targetsPath = "/api/v1/targets"

func TestOpenAPIDescribesEveryPath(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		var doc struct {
			OpenAPI string
			Paths   map[string]struct {
				Get struct {
					Parameters []struct{ Name string }
					Responses  map[string]any
				}
			}
		}
		w := h.request("GET", "/api/v1/openapi.json")
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "version", doc.OpenAPI, "3.1.0")
		described, served := make(map[string][]string), make(map[string][]string)
		for path, p := range doc.Paths {
			described[path] = nil
			for _, q := range p.Get.Parameters {
				described[path] = append(described[path], q.Name)
			}
			for _, status := range []string{"200", "400", "405"} {
				if p.Get.Responses[status] == nil && path != targetsPath {
					t.Errorf("%s does not describe %s", path, status)
				}
			}
		}
		delete(described, targetsPath)
		for _, r := range newServer(Options{Metrics: metricsOf(h.fleet)}).routes() {
			if r.api {
				served[r.path] = r.parameters
			}
		}
		testutil.Equal(t, "paths and parameters", described, served)
	})
}

// TestOpenAPIListsEveryProblemKind also checks that no other kind is listed.
func TestOpenAPIListsEveryProblemKind(t *testing.T) {
	kinds := monitor.ProblemKinds()
	var described []string
	for _, kind := range loadOpenAPI(t).schema("Problem")["properties"].(map[string]any)["kind"].(map[string]any)["enum"].([]any) {
		described = append(described, kind.(string))
	}
	slices.Sort(kinds)
	slices.Sort(described)
	testutil.Equal(t, "kinds", described, slices.Compact(kinds))
}
