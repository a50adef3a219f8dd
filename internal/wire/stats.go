package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"dynamo-metrics/internal/fleet"
)

// statsType is the type of every reply to a stats poll.
const statsType = "io.nats.micro.v1.stats_response"

// StatsReply is one worker's reply to a stats poll (all releases up to 0.5.1).
type StatsReply struct {
	Service   string // NATS service name
	ID        string // of the NATS service instance; identifies a static worker
	Endpoints []EndpointStats
}

// EndpointStats is the part of a StatsReply about one endpoint.
type EndpointStats struct {
	Subject string
	Data    []byte // undecoded JSON of the load; nil or null if there is none
}

// ParseStatsReply decodes a reply to a stats poll, except for the loads in it: a load that
// cannot be decoded must not affect the others. See also StatsDecoder.
func ParseStatsReply(b []byte) (StatsReply, error) {
	var r struct {
		Type, Name, ID string
		Endpoints      []struct {
			Subject string
			Data    json.RawMessage
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return StatsReply{}, fmt.Errorf("decode stats reply: %w", err)
	}
	if r.Type != statsType {
		return StatsReply{}, fmt.Errorf("decode stats reply: type %q, want %q", r.Type, statsType)
	}
	reply := StatsReply{Service: r.Name, ID: r.ID, Endpoints: make([]EndpointStats, len(r.Endpoints))}
	for i, e := range r.Endpoints {
		reply.Endpoints[i] = EndpointStats{Subject: e.Subject, Data: e.Data}
	}
	return reply, nil
}

// SplitSubject returns the endpoint and the lease in an endpoint's subject. It is the
// inverse of Subject. The name of an endpoint may contain "-" and end like an id. If
// isEndpoint accepts everything after the service's name, the subject belongs to a static
// worker (lease 0). SplitSubject reports false if the subject belongs to another service.
func SplitSubject[S string | []byte](service string, subject S, isEndpoint func(S) bool) (endpoint S, lease uint64, ok bool) {
	var none S
	if len(subject) <= len(service) || string(subject[:len(service)]) != service || subject[len(service)] != '.' {
		return none, 0, false
	}
	endpoint = subject[len(service)+1:]
	dash := len(endpoint) - 1
	for dash > 0 && endpoint[dash] != '-' {
		dash--
	}
	if dash > 0 && !isEndpoint(endpoint) {
		if id, isID := parseHexID(endpoint[dash+1:]); isID {
			endpoint, lease = endpoint[:dash], id
		}
	}
	if !validName(endpoint) {
		return none, 0, false
	}
	return endpoint, lease, true
}

// workerStats and kvStats are the two parts of a load. Up to 0.3.0 their fields are
// together in one flat object, and from 0.3.2 on each part has an object of its own. A
// value is nil if the worker did not send it, or sent null because it was NaN or infinite.
type workerStats struct {
	Rank        *uint32 `json:"data_parallel_rank"` // from 0.3.0 on
	ActiveSlots *uint64 `json:"request_active_slots"`
	TotalSlots  *uint64 `json:"request_total_slots"`
	Waiting     *uint64 `json:"num_requests_waiting"`
}

type kvStats struct {
	ActiveBlocks *uint64  `json:"kv_active_blocks"`
	TotalBlocks  *uint64  `json:"kv_total_blocks"`
	CacheUsage   *float64 `json:"gpu_cache_usage_perc"`
	HitRate      *float64 `json:"gpu_prefix_cache_hit_rate"`
}

type specStats struct {
	Drafts      *uint64 `json:"num_drafts"`
	DraftTokens *uint64 `json:"num_draft_tokens"`
	Accepted    *uint64 `json:"num_accepted_tokens"`
}

// loadData is a load of any release up to 0.7, in either shape.
type loadData struct {
	workerStats
	kvStats
	Worker *workerStats `json:"worker_stats"`
	KV     *kvStats     `json:"kv_stats"`
	Spec   *specStats   `json:"spec_decode_stats"`
}

// load returns the load and its rank. The load is empty if no field is known.
func (d *loadData) load() (l fleet.Load, rank uint32) {
	worker, kv, spec := d.workerStats, d.kvStats, specStats{}
	if d.Worker != nil {
		worker = *d.Worker
	}
	if d.KV != nil {
		kv = *d.KV
	}
	if d.Spec != nil {
		spec = *d.Spec
	}
	if worker.Rank != nil {
		rank = *worker.Rank
	}
	return fleet.Load{
		ActiveSlots:     opt(worker.ActiveSlots),
		TotalSlots:      opt(worker.TotalSlots),
		Waiting:         opt(worker.Waiting),
		KVActive:        opt(kv.ActiveBlocks),
		KVTotal:         opt(kv.TotalBlocks),
		CacheUsage:      opt(kv.CacheUsage),
		HitRate:         opt(kv.HitRate),
		SpecDrafts:      opt(spec.Drafts),
		SpecDraftTokens: opt(spec.DraftTokens),
		SpecAccepted:    opt(spec.Accepted),
	}, rank
}

var errNoKnownField = errors.New("decode load: no known field")

// ParseLoad decodes a load of any release up to 0.5.1, and the data parallel rank that it
// belongs to (from 0.3.0 on). It reports false without an error if the endpoint has no
// load.
func ParseLoad(data []byte) (load fleet.Load, rank uint32, ok bool, err error) {
	if len(data) == 0 || bytes.Equal(data, []byte("null")) {
		return fleet.Load{}, 0, false, nil
	}
	var d loadData
	if err := json.Unmarshal(data, &d); err != nil {
		return fleet.Load{}, 0, false, fmt.Errorf("decode load: %w", err)
	}
	if load, rank = d.load(); load == (fleet.Load{}) {
		return fleet.Load{}, 0, false, errNoKnownField
	}
	return load, rank, true, nil
}

func opt[T any](p *T) fleet.Opt[T] {
	if p == nil {
		return fleet.Opt[T]{}
	}
	return fleet.Some(*p)
}
