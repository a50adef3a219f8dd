package wire

import "dynamo-metrics/internal/fleet"

// DecodedReply is one worker's reply to a stats poll, with the loads decoded.
type DecodedReply struct {
	Service   string // NATS service name
	ID        []byte // of the NATS service instance; identifies a static worker
	Endpoints []DecodedEndpoint
}

// DecodedEndpoint is the part of a DecodedReply about one endpoint.
type DecodedEndpoint struct {
	Subject []byte
	Name    string // of the endpoint; empty if the subject belongs to another service
	Lease   uint64
	Outcome fleet.Outcome
	Load    fleet.Load // set if Outcome is Reported
	Rank    uint32     // that the load belongs to
	Err     error      // set if Outcome is Malformed
}

// StatsDecoder decodes replies to stats polls. Its result is that of ParseStatsReply,
// SplitSubject and ParseLoad together. It does not allocate for replies in the form that
// workers send. It is not safe for concurrent use.
type StatsDecoder struct {
	Endpoint string // the name of the polled endpoint, or empty; see SplitSubject

	service   string // of the last reply
	endpoints []DecodedEndpoint
	names     map[string]string // interned
}

const (
	maxInternedNames = 1024 // names of services and endpoints that a StatsDecoder keeps
	maxKeptEndpoints = 64   // larger slices are not kept for the next reply; a component has few endpoints
)

// Decode decodes a reply. The result is valid until the next call, and while b does not
// change. Its strings stay valid.
func (d *StatsDecoder) Decode(b []byte) (DecodedReply, error) {
	if cap(d.endpoints) > maxKeptEndpoints {
		d.endpoints = nil
	}
	service, id, ok := d.scan(b)
	if !ok {
		var err error
		if service, id, err = d.unmarshal(b); err != nil {
			return DecodedReply{}, err
		}
	}
	if string(service) != d.service {
		d.service = d.intern(service)
	}
	r := DecodedReply{Service: d.service, ID: id, Endpoints: d.endpoints}
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		name, lease, _ := SplitSubject(r.Service, e.Subject, d.isEndpoint)
		e.Lease = lease
		if string(name) != e.Name { // e.Name is still that of the last reply
			e.Name = d.intern(name)
		}
	}
	return r, nil
}

func (d *StatsDecoder) isEndpoint(endpoint []byte) bool { return string(endpoint) == d.Endpoint }

// intern returns the name as a string, without an allocation if it is a known name.
func (d *StatsDecoder) intern(name []byte) string {
	if s, ok := d.names[string(name)]; ok {
		return s
	}
	s := string(name)
	if len(s) > maxName {
		return s
	}
	if d.names == nil || len(d.names) >= maxInternedNames {
		d.names = make(map[string]string)
	}
	d.names[s] = s
	return s
}

// unmarshal is the slow path of Decode.
func (d *StatsDecoder) unmarshal(b []byte) (service, id []byte, err error) {
	r, err := ParseStatsReply(b)
	if err != nil {
		return nil, nil, err
	}
	d.endpoints = d.endpoints[:0]
	for _, e := range r.Endpoints {
		next := d.nextEndpoint()
		next.Subject = []byte(e.Subject)
		next.unmarshalLoad(e.Data)
	}
	return []byte(r.Service), []byte(r.ID), nil
}

// nextEndpoint appends an endpoint. It is empty, except for the name that the endpoint at
// this position had in the last reply.
func (d *StatsDecoder) nextEndpoint() *DecodedEndpoint {
	n := len(d.endpoints)
	if n == cap(d.endpoints) {
		d.endpoints = append(d.endpoints, DecodedEndpoint{})
	}
	d.endpoints = d.endpoints[:n+1]
	e := &d.endpoints[n]
	*e = DecodedEndpoint{Name: e.Name, Outcome: fleet.NoLoad}
	return e
}

// unmarshalLoad is the slow path of scanLoad.
func (e *DecodedEndpoint) unmarshalLoad(data []byte) {
	load, rank, ok, err := ParseLoad(data)
	switch {
	case err != nil:
		e.Outcome, e.Err = fleet.Malformed, err
	case ok:
		e.Outcome, e.Load, e.Rank = fleet.Reported, load, rank
	}
}

// Indices in replyKeys.
const (
	replyType = iota
	replyName
	replyID
	replyVersion
	replyStarted
	replyEndpoints
)

var replyKeys = keyList{
	replyType:      `"type":`,
	replyName:      `"name":`,
	replyID:        `"id":`,
	replyVersion:   `"version":`,
	replyStarted:   `"started":`,
	replyEndpoints: `"endpoints":`,
}

// Indices in endpointKeys.
const (
	endpointName = iota
	endpointSubject
	endpointRequests
	endpointErrors
	endpointTime
	endpointAverage
	endpointLastError
	endpointData
	endpointQueue
)

var endpointKeys = keyList{
	endpointName:      `"name":`,
	endpointSubject:   `"subject":`,
	endpointRequests:  `"num_requests":`,
	endpointErrors:    `"num_errors":`,
	endpointTime:      `"processing_time":`,
	endpointAverage:   `"average_processing_time":`,
	endpointLastError: `"last_error":`,
	endpointData:      `"data":`,
	endpointQueue:     `"queue_group":`,
}

// scan is the fast path of Decode.
func (d *StatsDecoder) scan(s jsonScanner) (service, id []byte, ok bool) {
	d.endpoints = d.endpoints[:0]
	var kind []byte
	var listed bool
	which := -1
	i := s.open(s.skipSpace(0), '{')
	for ; s.at(i, '"'); i = s.nextElement(i, '"') {
		switch which, i = s.matchKey(i, replyKeys, which+1); which {
		case replyType:
			i = s.strOnce(i, &kind)
		case replyName:
			i = s.strOnce(i, &service)
		case replyID:
			i = s.strOnce(i, &id)
		case replyEndpoints:
			if listed {
				return nil, nil, false
			}
			i, listed = d.scanEndpoints(s, i), true
		default:
			i = s.skipValue(i, maxSkip)
		}
	}
	return service, id, s.atEnd(s.close(i, '}')) && string(kind) == statsType
}

// scanEndpoints reads the endpoints.
func (d *StatsDecoder) scanEndpoints(s jsonScanner, i int) int {
	for i = s.open(i, '['); s.at(i, '{'); i = s.nextElement(i, '{') {
		i = d.nextEndpoint().scan(s, i)
	}
	return s.close(i, ']')
}

// scan reads one endpoint.
func (e *DecodedEndpoint) scan(s jsonScanner, i int) int {
	var hasData bool
	which := -1
	for i = s.open(i, '{'); s.at(i, '"'); i = s.nextElement(i, '"') {
		switch which, i = s.matchKey(i, endpointKeys, which+1); which {
		case endpointSubject:
			i = s.strOnce(i, &e.Subject)
		case endpointData:
			if hasData {
				return s.fail()
			}
			i, hasData = e.scanLoad(s, i), true
		default:
			i = s.skipValue(i, maxSkip)
		}
	}
	return s.close(i, '}')
}

// scanLoad reads the load of an endpoint. If the scanner fails at a load, only that load
// takes the slow path. If the load is malformed, the other endpoints are not affected.
func (e *DecodedEndpoint) scanLoad(s jsonScanner, i int) int {
	if s.at(i, 'n') {
		return s.literal(i, "null")
	}
	f := loadFields{Load: &e.Load, lastKey: -1}
	end := f.scan(s, i)
	if end <= len(s) && e.Load != (fleet.Load{}) {
		e.Outcome, e.Rank = fleet.Reported, uint32(f.rank.V)
		return end
	}
	e.Load = fleet.Load{}
	if end = s.skipValue(i, maxSkip); end <= len(s) {
		e.unmarshalLoad(s[i:end])
	}
	return end
}
