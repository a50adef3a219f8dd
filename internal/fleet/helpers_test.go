package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	generate    = Endpoint{Component: "backend", Name: "generate"}
	generate2   = Endpoint{Component: "backend", Name: "generate2"}
	loadMetrics = Endpoint{Component: "backend", Name: "load_metrics"}
	prefill     = Endpoint{Component: "prefill", Name: "generate"}

	everything = Target{}
	backend    = Target{Component: "backend"}
)

var start = time.Date(2025, 2, 26, 18, 45, 5, 0, time.UTC)

// largeLimit is a limit of workers that no test reaches by accident.
const largeLimit = 1000

// newFleet returns a Fleet that is synced with an empty registry, and whose clock is at
// start.
func newFleet(target Target, limit int) *Fleet {
	f := New(target, limit, true)
	f.Sync(Listing{})
	f.Advance(start)
	return f
}

// after sets the Fleet's clock to d after start.
func after(f *Fleet, d time.Duration) { f.Advance(start.Add(d)) }

func lease(id uint64) WorkerID { return WorkerID{Lease: id} }
func static(id string) WorkerID {
	return WorkerID{Static: id}
}

func register(f *Fleet, e Endpoint, ids ...uint64) {
	for _, id := range ids {
		f.Register(keyOf(Instance{Endpoint: e, ID: id}), Instance{Endpoint: e, ID: id}, Registration{NATS: true})
	}
}

// keyOf returns the key of an instance, as in most releases.
func keyOf(in Instance) string { return fmt.Sprintf("v1/instances/%s/%x", in.Endpoint, in.ID) }

// listing returns a registry of workers that are polled.
func listing(all ...Instance) Listing {
	l := Listing{Instances: make(map[string]InstanceEntry)}
	for _, in := range all {
		l.Instances[keyOf(in)] = InstanceEntry{in, Registration{NATS: true}}
	}
	return l
}

func deregister(f *Fleet, e Endpoint, ids ...uint64) {
	for _, id := range ids {
		f.Deregister(keyOf(Instance{Endpoint: e, ID: id}), Instance{Endpoint: e, ID: id})
	}
}

// loaded returns a reply with this many of 100 KV blocks in use.
func loaded(e Endpoint, id WorkerID, blocks uint64) PollReply {
	return PollReply{
		Endpoint: e, Worker: id, Service: "dynamo_" + e.Component, Outcome: Reported,
		Load: Load{KVActive: Some(blocks), KVTotal: Some[uint64](100)},
	}
}

func loadless(e Endpoint, id WorkerID) PollReply {
	return PollReply{Endpoint: e, Worker: id, Service: "dynamo_" + e.Component, Outcome: NoLoad}
}

func malformed(e Endpoint, id WorkerID) PollReply {
	return PollReply{Endpoint: e, Worker: id, Service: "dynamo_" + e.Component, Outcome: Malformed}
}

// poll makes a poll with these replies.
func poll(f *Fleet, answers ...PollReply) {
	f.BeginPoll()
	for _, r := range answers {
		f.RecordPollReply(r)
	}
	f.EndPoll(true)
}

// format formats a Snapshot for people: a line for each endpoint, followed by an indented line
// for each of its workers. Zeros are left out.
func format(s Snapshot) string {
	var b strings.Builder
	rows := s.Workers
	for _, e := range s.Endpoints {
		fmt.Fprintln(&b, e.Endpoint.String()+":"+formatEndpoint(e))
		for len(rows) > 0 && rows[0].Endpoint == e.Endpoint {
			fmt.Fprintln(&b, "  "+rows[0].Label+formatWorker(rows[0]))
			rows = rows[1:]
		}
	}
	for _, w := range rows {
		fmt.Fprintln(&b, "NO ENDPOINT "+w.Endpoint.String()+" "+w.Label)
	}
	return b.String()
}

func formatEndpoint(e EndpointState) string {
	var b strings.Builder
	if !e.Counted {
		b.WriteString(" not counted")
	}
	for _, c := range []struct {
		n    int
		what string
	}{{e.Answering, "answering"}, {e.Silent, "silent"}, {e.Unregistered, "unregistered"}, {e.Malformed, "malformed"}, {int(e.HitEvents), "events"}} {
		if c.n != 0 {
			fmt.Fprintf(&b, " %d %s", c.n, c.what)
		}
	}
	if e.Blocks.N > 0 {
		fmt.Fprintf(&b, " mean %g", e.Blocks.Mean)
	}
	return b.String()
}

func formatWorker(w WorkerState) string {
	var b strings.Builder
	switch {
	case w.Up:
		b.WriteString(" up")
	case w.Listed:
		b.WriteString(" down")
	}
	if w.Load.OK {
		fmt.Fprintf(&b, " kv %d", w.Load.V.KVActive.V)
	}
	if w.Hits.OK {
		fmt.Fprintf(&b, " hits %d/%d", w.Hits.V.OverlapBlocks, w.Hits.V.ISLBlocks)
	}
	return b.String()
}

// wantShown fails the test unless the Fleet shows these lines. It also checks the invariants.
func wantShown(t *testing.T, f *Fleet, lines ...string) {
	t.Helper()
	checkInvariants(t, f)
	want := ""
	for _, l := range lines {
		want += l + "\n"
	}
	if diff := cmp.Diff(want, format(f.Snapshot())); diff != "" {
		t.Errorf("the fleet shows (-want +got):\n%s", diff)
	}
}
