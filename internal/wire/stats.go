package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// statsType is the type of every answer to a stats poll.
const statsType = "io.nats.micro.v1.stats_response"

// StatsReply is one worker's answer to a stats poll (all releases to 0.5.1).
type StatsReply struct {
	Service   string // NATS service name
	ID        string // of the NATS service instance; tells static workers apart
	Endpoints []EndpointStats
}

// EndpointStats is what such an answer says of one endpoint.
type EndpointStats struct {
	Subject string
	Data    []byte // JSON of its load, undecoded; nil or null where it carries none
}

// ParseStatsReply decodes an answer to a stats poll, but for the loads in it:
// one that cannot be decoded must not take the others with it.
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

// SplitSubject reads endpoint and lease out of an endpoint's subject, the inverse
// of Subject. Endpoint names may hold "-" and end like an id: a subject that
// isEndpoint knows whole is a static worker's (lease 0). It reports false if the
// subject is not one of the service.
func SplitSubject(service, subject string, isEndpoint func(string) bool) (endpoint string, lease uint64, ok bool) {
	endpoint, ok = strings.CutPrefix(subject, service+".")
	if dash := strings.LastIndexByte(endpoint, '-'); ok && dash > 0 && !isEndpoint(endpoint) {
		if id, isID := parseHexID(endpoint[dash+1:]); isID {
			endpoint, lease = endpoint[:dash], id
		}
	}
	if !ok || !validName(endpoint) {
		return "", 0, false
	}
	return endpoint, lease, true
}

// workerStats and kvStats are the two halves of a load: side by side in one flat
// object to 0.3.0, each in an object of its own from 0.3.2 on. A value that the
// worker did not send, or that was NaN or infinite (null), is nil.
type workerStats struct {
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

var errNoKnownField = errors.New("decode load: no known field")

// ParseLoad decodes a load of any release to 0.5.1. It reports false without an
// error where the endpoint carries none.
func ParseLoad(data []byte) (load fleet.Load, ok bool, err error) {
	if len(data) == 0 || bytes.Equal(data, []byte("null")) {
		return fleet.Load{}, false, nil
	}
	var v struct {
		workerStats
		kvStats
		Worker *workerStats `json:"worker_stats"`
		KV     *kvStats     `json:"kv_stats"`
		Spec   *specStats   `json:"spec_decode_stats"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return fleet.Load{}, false, fmt.Errorf("decode load: %w", err)
	}
	if v.Worker != nil {
		v.workerStats = *v.Worker
	}
	if v.KV != nil {
		v.kvStats = *v.KV
	}
	if v.Spec == nil {
		v.Spec = new(specStats)
	}
	load = fleet.Load{
		ActiveSlots:     opt(v.ActiveSlots),
		TotalSlots:      opt(v.TotalSlots),
		Waiting:         opt(v.Waiting),
		KVActive:        opt(v.ActiveBlocks),
		KVTotal:         opt(v.TotalBlocks),
		CacheUsage:      opt(v.CacheUsage),
		HitRate:         opt(v.HitRate),
		SpecDrafts:      opt(v.Spec.Drafts),
		SpecDraftTokens: opt(v.Spec.DraftTokens),
		SpecAccepted:    opt(v.Spec.Accepted),
	}
	if load == (fleet.Load{}) {
		return fleet.Load{}, false, errNoKnownField
	}
	return load, true, nil
}

func opt[T any](p *T) fleet.Opt[T] {
	if p == nil {
		return fleet.Opt[T]{}
	}
	return fleet.Some(*p)
}
