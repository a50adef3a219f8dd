package wire

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
)

// releases lists the releases with captured registrations and stats replies in testdata.
var releases = [...]struct {
	name   string
	era    Era
	layout Layout
}{
	{"0.1.1", EraHashed, LayoutComponents},
	{"0.2.1", EraPlain, LayoutComponents},
	{"0.3.0", EraPlain, LayoutInstances},
	{"0.3.2", EraPlain, LayoutInstances},
	{"0.5.1", EraPlain, LayoutInstances},
}

// capturedWorker is the configuration with which a captured worker was started.
type capturedWorker struct {
	Namespace string
	Component string
	Endpoints []string
	LeaseID   uint64 `json:"lease_id"`
	Values    struct {
		ActiveSlots uint64 `json:"active_slots"`
		TotalSlots  uint64 `json:"total_slots"`
		KVActive    uint64 `json:"kv_active"`
		KVTotal     uint64 `json:"kv_total"`
		Waiting     uint64
		Usage, Hit  float32 // Dynamo stores single precision, and widens it to double for the wire
	}
}

// load returns the load that the worker reports.
func (w capturedWorker) load() fleet.Load {
	return fleet.Load{
		ActiveSlots: fleet.Some(w.Values.ActiveSlots),
		TotalSlots:  fleet.Some(w.Values.TotalSlots),
		Waiting:     fleet.Some(w.Values.Waiting),
		KVActive:    fleet.Some(w.Values.KVActive),
		KVTotal:     fleet.Some(w.Values.KVTotal),
		CacheUsage:  fleet.Some(float64(w.Values.Usage)),
		HitRate:     fleet.Some(float64(w.Values.Hit)),
	}
}

// capturedReplies returns the paths below testdata of the files with stats replies.
func capturedReplies(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*/stats_reply_*.json", "*/edge/*.json"} {
		files, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if name := filepath.Base(file); name != "nan.json" && name != "names.json" {
				all = append(all, strings.TrimPrefix(filepath.ToSlash(file), "testdata/"))
			}
		}
	}
	if len(all) < 40 {
		t.Fatalf("testdata has %d stats replies, want at least 40", len(all))
	}
	return all
}

// endpointLoad is the decoded part of a reply about one endpoint.
type endpointLoad struct {
	Endpoint  string
	Lease     uint64
	Load      fleet.Opt[fleet.Load]
	Malformed bool
}

// endpointLoadsOf decodes a valid reply and the loads of its endpoints, sorted by name.
func endpointLoadsOf(t testing.TB, b []byte) (StatsReply, []endpointLoad) {
	t.Helper()
	reply, err := ParseStatsReply(b)
	if err != nil {
		t.Fatal(err)
	}
	loads := []endpointLoad{}
	for _, e := range reply.Endpoints {
		endpoint, lease, ok := SplitSubject(reply.Service, e.Subject, noEndpoint)
		if !ok {
			t.Errorf("SplitSubject(%q, %q) is not ok", reply.Service, e.Subject)
		}
		load, _, found, err := ParseLoad(e.Data)
		loads = append(loads, endpointLoad{endpoint, lease, fleet.Opt[fleet.Load]{V: load, OK: found}, err != nil})
	}
	slices.SortFunc(loads, func(a, b endpointLoad) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	return reply, loads
}

// noEndpoint is an argument isEndpoint for SplitSubject that accepts no name.
func noEndpoint(string) bool { return false }
