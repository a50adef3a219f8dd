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

// plenty is a limit that no test reaches by accident.
const largeLimit = 1000

// fleetAt is a new Fleet that knows that nobody is registered, and whose clock
// stands at start.
func newFleet(target Target, limit int) *Fleet {
	f := New(target, limit, true)
	f.Sync(Listing{})
	f.Advance(start)
	return f
}

// after moves the Fleet's clock to this long after start.
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

// keyOf is where a worker registers, as most releases have it.
func keyOf(in Instance) string { return fmt.Sprintf("v1/instances/%s/%x", in.Endpoint, in.ID) }

// listing is a registry of workers that are polled.
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

// loaded is a report of this many KV blocks in use, of 100.
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

// poll is one whole poll with these answers.
func poll(f *Fleet, answers ...PollReply) {
	f.BeginPoll()
	for _, r := range answers {
		f.RecordPollReply(r)
	}
	f.EndPoll(true)
}

// shown writes a Snapshot as people would read it: a line for each endpoint, and
// indented below it a line for each of its workers. Zeros are left out.
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

// shows fails the test unless the Fleet shows these lines; it also checks the books.
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
