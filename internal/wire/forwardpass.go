package wire

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// ForwardPass is what one rank of a worker's engine says of one pass of its model,
// or while it has none to do (1.1 to 1.6).
type ForwardPass struct {
	Worker      uint64
	HasWorkerID bool // the engine was told the worker's id
	Rank        uint32
	Counter     uint64  // one more with every event of the rank, idle or not
	WallTime    float64 // seconds; 0 while idle, and then it was no pass
	Scheduled   PassRequests
	Queued      PassRequests
}

// PassRequests are the requests of a pass, or those that wait for one.
type PassRequests struct {
	PrefillRequests uint64
	PrefillTokens   uint64 // to compute
	PrefillKVTokens uint64 // in the KV cache already; 0 for those that wait: nobody knows
	DecodeRequests  uint64 // each makes one token a pass; one that waits was preempted
	DecodeKVTokens  uint64
}

// Running is how many requests the engine works on.
func (p ForwardPass) Running() uint64 {
	return p.Scheduled.PrefillRequests + p.Scheduled.DecodeRequests
}

// Waiting is how many requests it has queued.
func (p ForwardPass) Waiting() uint64 { return p.Queued.PrefillRequests + p.Queued.DecodeRequests }

// Bounds on one event, so that forged ones do not make sums wrap soon.
const (
	maxRequests = 1 << 32
	maxTokens   = 1 << 40 // ten thousand prompts of a million tokens are 2^33
	maxSeconds  = 1e7     // four months
)

// passVersion is the only version of the event so far. Dynamo means to raise it
// when an old reader would misunderstand the rest.
const passVersion = 1

var errPassVersion = errors.New("not of version 1")

// ParseForwardPass decodes the payload of an event of TopicForwardPass (1.1 to 1.6).
// An engine that was not told the worker's id sends an empty one, or what else it
// was started with: that is no error, but HasWorker is false.
func ParseForwardPass(payload []byte) (ForwardPass, error) {
	var p ForwardPass
	var got uint
	u := msgpackReader{b: payload}
	for range u.mapLen() {
		switch string(u.key()) {
		case "version":
			if got |= 1; u.uint() != passVersion {
				u.fail(errPassVersion)
			}
		case "worker_id":
			p.Worker, p.HasWorkerID = u.decimalID()
		case "dp_rank":
			p.Rank = u.rank()
		case "counter_id":
			p.Counter, got = u.uint(), got|2
		case "wall_time":
			p.WallTime, got = u.float(), got|4
		case "scheduled_requests":
			p.Scheduled, got = u.passRequests(), got|8
		case "queued_requests":
			p.Queued, got = u.passRequests(), got|16
		default:
			u.skipValue()
		}
	}
	u.require(got, 1|2|4|8|16)
	if !(p.WallTime >= 0 && p.WallTime <= maxSeconds) { // nor NaN
		u.fail(errMsgpackRange)
	}
	if err := u.finish(); err != nil {
		return ForwardPass{}, fmt.Errorf("decode forward pass: %w", err)
	}
	p.WallTime = math.Abs(p.WallTime) // of -0
	return p, nil
}

func (u *msgpackReader) passRequests() (r PassRequests) {
	var got uint
	for range u.mapLen() {
		switch string(u.key()) {
		case "num_prefill_requests":
			r.PrefillRequests, got = u.boundedUint(maxRequests), got|1
		case "sum_prefill_tokens":
			r.PrefillTokens, got = u.boundedUint(maxTokens), got|2
		case "sum_prefill_kv_tokens":
			r.PrefillKVTokens = u.boundedUint(maxTokens)
		case "num_decode_requests":
			r.DecodeRequests, got = u.boundedUint(maxRequests), got|4
		case "sum_decode_kv_tokens":
			r.DecodeKVTokens, got = u.boundedUint(maxTokens), got|8
		default:
			u.skipValue()
		}
	}
	u.require(got, 1|2|4|8)
	return r
}

// decimalID is a worker's id written out. It reports false for anything else.
func (u *msgpackReader) decimalID() (id uint64, ok bool) {
	if u.skipNil() {
		return 0, false
	}
	s := u.str()
	if len(s) > len("18446744073709551615") {
		return 0, false
	}
	id, err := strconv.ParseUint(string(s), 10, 64)
	if err != nil || id == 0 {
		return 0, false
	}
	return id, true
}
