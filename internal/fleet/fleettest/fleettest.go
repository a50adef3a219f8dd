// Package fleettest makes fleets for the tests of other packages. Those of captured bytes are
// wiretest's.
package fleettest

import (
	"fmt"
	"time"

	"dynamo-metrics/internal/fleet"
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
