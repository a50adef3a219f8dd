package wire

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// ForwardPass is the report of one rank of a worker's engine about one forward pass of its
// model, or about being idle (1.1 to 1.6).
type ForwardPass struct {
	Worker      uint64
	HasWorkerID bool // false if the engine does not know its worker's id
	Rank        uint32
	Counter     uint64  // grows by one with every event of the rank, idle or not
	WallTime    float64 // seconds; 0 if the rank was idle, so that there was no pass
	Scheduled   PassRequests
	Queued      PassRequests
}

// PassRequests counts the requests of a pass, or those that wait for one.
type PassRequests struct {
	PrefillRequests uint64
	PrefillTokens   uint64 // tokens to compute
	PrefillKVTokens uint64 // tokens in the KV cache already; 0 for queued requests, where it is unknown
	DecodeRequests  uint64 // each yields one token a pass; a queued one was preempted
	DecodeKVTokens  uint64
}

// Running returns how many requests the engine works on.
func (p ForwardPass) Running() uint64 {
	return p.Scheduled.PrefillRequests + p.Scheduled.DecodeRequests
}

// Waiting returns how many requests the engine has queued.
func (p ForwardPass) Waiting() uint64 { return p.Queued.PrefillRequests + p.Queued.DecodeRequests }

// Limits of the values of one event, so that forged events do not soon overflow a sum.
const (
	maxRequests = 1 << 32
	maxTokens   = 1 << 40 // ten thousand prompts of a million tokens are 2^33
	maxSeconds  = 1e7     // four months
)

// passVersion is the only version of the event so far. Dynamo intends to raise it when an
// old reader would misunderstand the other fields.
const passVersion = 1

var errPassVersion = errors.New("not of version 1")

// ParseForwardPass decodes the payload of an event of TopicForwardPass (1.1 to 1.6). An
// engine that does not know its worker's id sends an empty id, or the name with which it
// was started. That is not an error, but HasWorkerID is false.
func ParseForwardPass(payload []byte) (ForwardPass, error) {
	const (
		version = 1 << iota
		counter
		wallTime
		scheduled
		queued
		all = 1<<iota - 1
	)
	var p ForwardPass
	var got uint
	m := msgpackReader{b: payload}
	for range m.mapLen() {
		switch string(m.key()) {
		case "version":
			if got |= version; m.uint() != passVersion {
				m.fail(errPassVersion)
			}
		case "worker_id":
			p.Worker, p.HasWorkerID = m.decimalID()
		case "dp_rank":
			p.Rank = m.rank()
		case "counter_id":
			p.Counter, got = m.uint(), got|counter
		case "wall_time":
			p.WallTime, got = m.float(), got|wallTime
		case "scheduled_requests":
			p.Scheduled, got = m.passRequests(), got|scheduled
		case "queued_requests":
			p.Queued, got = m.passRequests(), got|queued
		default:
			m.skipValue()
		}
	}
	m.require(got, all)
	if !(p.WallTime >= 0 && p.WallTime <= maxSeconds) { // rejects NaN, too
		m.fail(errMsgpackRange)
	}
	if err := m.finish(); err != nil {
		return ForwardPass{}, fmt.Errorf("decode forward pass: %w", err)
	}
	p.WallTime = math.Abs(p.WallTime) // -0 becomes 0
	return p, nil
}

func (m *msgpackReader) passRequests() (r PassRequests) {
	const (
		prefillRequests = 1 << iota
		prefillTokens
		decodeRequests
		decodeKVTokens
		all = 1<<iota - 1
	)
	var got uint
	for range m.mapLen() {
		switch string(m.key()) {
		case "num_prefill_requests":
			r.PrefillRequests, got = m.boundedUint(maxRequests), got|prefillRequests
		case "sum_prefill_tokens":
			r.PrefillTokens, got = m.boundedUint(maxTokens), got|prefillTokens
		case "sum_prefill_kv_tokens":
			r.PrefillKVTokens = m.boundedUint(maxTokens)
		case "num_decode_requests":
			r.DecodeRequests, got = m.boundedUint(maxRequests), got|decodeRequests
		case "sum_decode_kv_tokens":
			r.DecodeKVTokens, got = m.boundedUint(maxTokens), got|decodeKVTokens
		default:
			m.skipValue()
		}
	}
	m.require(got, all)
	return r
}

// decimalID reads a worker's id that is written as decimal text. It reports false for any
// other text and for nil.
func (m *msgpackReader) decimalID() (id uint64, ok bool) {
	if m.skipNil() {
		return 0, false
	}
	s := m.str()
	if len(s) > len("18446744073709551615") {
		return 0, false
	}
	id, err := strconv.ParseUint(string(s), 10, 64)
	if err != nil || id == 0 {
		return 0, false
	}
	return id, true
}
