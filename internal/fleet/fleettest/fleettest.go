// Package fleettest makes fleets for the tests of other packages: fleets of workers whose answers
// and events were captured, and large ones.
package fleettest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// LoadMetrics is the endpoint at which workers of releases up to 0.5.1 report their load.
var LoadMetrics = fleet.Endpoint{Component: "backend", Name: "load_metrics"}

// Generate is the endpoint that serves a model.
var Generate = fleet.Endpoint{Component: "backend", Name: "generate"}

// Everything is the target without a component, which covers all endpoints.
var Everything = fleet.Target{}

// Reported is the time on the clock of these fleets, at which their loads are received.
var Reported = time.Date(2025, 2, 26, 18, 45, 5, 0, time.UTC)

// maxWorkers is a limit that no test reaches by accident.
const maxWorkers = 1000

// New returns a fleet without workers that has read its registry, if workers register at all.
func New(target fleet.Target, registry bool) *fleet.Fleet {
	f := fleet.New(target, maxWorkers, registry)
	f.Sync(fleet.Listing{})
	f.Advance(Reported)
	return f
}

// Replies decodes one worker's answer into a reply for each endpoint in it.
func Replies(t testing.TB, component string, answer []byte) []fleet.PollReply {
	t.Helper()
	reply, err := wire.ParseStatsReply(answer)
	if err != nil {
		t.Fatal(err)
	}
	var rs []fleet.PollReply
	for _, e := range reply.Endpoints {
		name, lease, ok := wire.SplitSubject(reply.Service, e.Subject, func(string) bool { return false })
		if !ok {
			t.Fatalf("subject %q is not a subject of the service %q", e.Subject, reply.Service)
		}
		r := fleet.PollReply{
			Endpoint: fleet.Endpoint{Component: component, Name: name},
			Worker:   fleet.WorkerID{Lease: lease}, Service: reply.Service, Outcome: fleet.NoLoad,
		}
		if lease == 0 {
			r.Worker.Static = reply.ID
		}
		load, rank, found, err := wire.ParseLoad(e.Data)
		switch {
		case err != nil:
			r.Outcome = fleet.Malformed
		case found:
			r.Outcome, r.Load, r.Rank = fleet.Reported, load, rank
		}
		rs = append(rs, r)
	}
	return rs
}

// RegisterAll registers every worker of these answers that has a lease.
func RegisterAll(t testing.TB, f *fleet.Fleet, component string, answers ...[]byte) {
	t.Helper()
	for _, a := range answers {
		for _, r := range Replies(t, component, a) {
			if !r.Worker.IsStatic() {
				f.Register("", fleet.Instance{Endpoint: r.Endpoint, ID: r.Worker.Lease}, fleet.Registration{NATS: true})
			}
		}
	}
}

// Poll records one poll with these answers.
func Poll(t testing.TB, f *fleet.Fleet, component string, answers ...[]byte) {
	t.Helper()
	f.BeginPoll()
	for _, a := range answers {
		f.RecordPollReply(Replies(t, component, a)...)
	}
	f.EndPoll(true)
}

// Original returns the fleet whose metrics were captured from the original.
func Original(t testing.TB) *fleet.Fleet {
	t.Helper()
	f := New(fleet.Target(LoadMetrics), true)
	answers := OriginalAnswers(t)
	RegisterAll(t, f, "backend", answers...)
	Poll(t, f, "backend", answers...)
	var events []json.RawMessage
	if err := json.Unmarshal(testutil.Captured(t, "original", "hit_rate_events.json"), &events); err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		hit, err := wire.ParseHitRate(e)
		if err != nil {
			t.Fatal(err)
		}
		f.RecordHit(hit.Worker, hit.ISLBlocks, hit.OverlapBlocks)
	}
	return f
}

// OriginalAnswers returns the answers of the workers of that fleet.
func OriginalAnswers(t testing.TB) [][]byte {
	t.Helper()
	return [][]byte{
		testutil.Captured(t, "original", "stats_reply_1.json"),
		testutil.Captured(t, "original", "stats_reply_2.json"),
		testutil.Captured(t, "original", "stats_reply_3.json"),
	}
}

// Full returns a fleet of n workers that report every value that an answer to a poll can have.
func Full(n int) *fleet.Fleet {
	f := fleet.New(Everything, n, true)
	f.Sync(fleet.Listing{})
	f.Advance(Reported)
	some := fleet.Some[uint64]
	for id := range uint64(n) {
		in := fleet.Instance{Endpoint: LoadMetrics, ID: 0x7d7ba2096ef23e30 + id}
		f.Register("", in, fleet.Registration{NATS: true})
		f.RecordPollReply(fleet.PollReply{Endpoint: LoadMetrics, Worker: fleet.WorkerID{Lease: in.ID}, Service: "dynamo_backend", Load: fleet.Load{
			ActiveSlots: some(3), TotalSlots: some(16), Waiting: some(2), KVActive: some(id % 1000), KVTotal: some(1000),
			CacheUsage: fleet.Some(0.4000000059604645), HitRate: fleet.Some(0.25),
		}})
		f.RecordHit(in.ID, 20, id%20)
	}
	return f
}

// Large returns a fleet of n workers with published loads, forward passes and hits. Half of them
// are registered as workers that are polled, too.
func Large(n int) *fleet.Fleet {
	f := fleet.New(fleet.Target{}, 2*n, true)
	f.Advance(time.Now())
	l := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry), Cards: make(map[string]fleet.CardEntry)}
	for i := range n {
		in := fleet.Instance{Endpoint: Generate, ID: 0x694d000000000000 + uint64(i)*7919}
		l.Instances[fmt.Sprint(i)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{NATS: true, Publishes: i%2 == 1}}
		l.Cards[fmt.Sprint(i)] = fleet.CardEntry{Instance: in, Card: fleet.Card{Model: "deepseek-ai/DeepSeek-R1", KVTotal: fleet.Some[uint64](16384), MaxSeqs: fleet.Some[uint64](256)}}
	}
	f.Sync(l)
	for _, in := range l.Instances {
		UpdateWorker(f, in.ID, 0)
	}
	return f
}

// UpdateWorker gives a worker of Large a new load, a forward pass and a hit. Its argument at is
// the number of the update.
func UpdateWorker(f *fleet.Fleet, id uint64, at int) {
	from := fleet.Origin{Endpoint: Generate, Worker: id}
	blocks := (id/7919*37 + uint64(at)*41) % 16384
	f.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: fleet.Some[uint64](blocks)})
	f.RecordForwardPass(from, fleet.Pass{Counter: uint64(at) + 1, Seconds: 0.02, Running: blocks / 64, Waiting: blocks / 16000, QueuedTokens: blocks})
	f.RecordHit(id, 40, blocks%41)
}
