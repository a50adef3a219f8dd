package fleettest

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

// RegisterPolled registers workers that are polled.
func RegisterPolled(f *fleet.Fleet, e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		f.Register("", fleet.Instance{Endpoint: e, ID: id}, fleet.Registration{NATS: true})
	}
}

// RegisterPublishing registers workers that publish their loads, and their model cards.
func RegisterPublishing(f *fleet.Fleet, e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		in := fleet.Instance{Endpoint: e, ID: id}
		f.Register("", in, fleet.Registration{Publishes: true})
		f.SetCard("", in, fleet.Card{Model: "Qwen/Qwen3-8B", KVTotal: fleet.Some[uint64](1000), MaxSeqs: fleet.Some[uint64](64)})
	}
}

// PollReply returns an answer to a poll: this many of a thousand KV blocks are active, and this
// many requests wait.
func PollReply(e fleet.Endpoint, id, blocks, waiting uint64) fleet.PollReply {
	n := fleet.Some[uint64]
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Load: fleet.Load{
		KVActive: n(blocks), KVTotal: n(1000), ActiveSlots: n(blocks / 20), TotalSlots: n(64), Waiting: n(waiting)}}
}

// MalformedReply returns an answer to a poll whose load cannot be decoded.
func MalformedReply(e fleet.Endpoint, id uint64) fleet.PollReply {
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Outcome: fleet.Malformed}
}

// Tick lets a second of a synctest bubble pass, and then records a poll with these replies.
func Tick(f *fleet.Fleet, replies ...fleet.PollReply) {
	time.Sleep(time.Second)
	f.Advance(time.Now())
	f.BeginPoll()
	f.RecordPollReply(replies...)
	f.EndPoll(f.Stats.RegistryUp() && f.Stats.NATS.Up())
}
