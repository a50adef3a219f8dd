package wire

import "dynamo-metrics/internal/fleet"

// Answer is what one worker's answer to a stats poll says, decoded to the end.
type DecodedReply struct {
	Service   string // NATS service name
	ID        []byte // of the NATS service instance; tells static workers apart
	Endpoints []DecodedEndpoint
}

// EndpointAnswer is what such an answer says of one endpoint.
type DecodedEndpoint struct {
	Subject []byte
	Name    string // of the endpoint; empty if the subject is not one of the service
	Lease   uint64
	Outcome fleet.Outcome
	Load    fleet.Load // with Reported
	Rank    uint32     // whose load it is
	Err     error      // with Malformed
}

// StatsDecoder decodes one answer to a stats poll after the other, as ParseStatsReply,
// SplitSubject and ParseLoad do together, and without an allocation where it is one as
// workers send it. It is for one goroutine.
type StatsDecoder struct {
	Endpoint string // known by name, or empty; see SplitSubject

	service   string // of the last answer
	endpoints []DecodedEndpoint
	names     map[string]string
}

const (
	maxInternedNames = 1024 // of services and endpoints, that a StatsDecoder remembers
	maxKeptEndpoints = 64   // of which it keeps the memory; a component has a handful
)

// Decode decodes an answer. The Answer is good until the next call, and only while b
// is not changed; its strings are good for ever.
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
	a := DecodedReply{Service: d.service, ID: id, Endpoints: d.endpoints}
	for i := range a.Endpoints {
		e := &a.Endpoints[i]
		name, lease, _ := SplitSubject(a.Service, e.Subject, d.isEndpoint)
		e.Lease = lease
		if string(name) != e.Name { // that of the last answer
			e.Name = d.intern(name)
		}
	}
	return a, nil
}

func (d *StatsDecoder) isEndpoint(endpoint []byte) bool { return string(endpoint) == d.Endpoint }

// intern is the one string of a name that is seen all the time.
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

// next is one more endpoint, blank but for the name that its predecessor had.
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

// unmarshal is the slow path of the load in an endpoint's data.
func (e *DecodedEndpoint) unmarshalLoad(data []byte) {
	load, rank, ok, err := ParseLoad(data)
	switch {
	case err != nil:
		e.Outcome, e.Err = fleet.Malformed, err
	case ok:
		e.Outcome, e.Load, e.Rank = fleet.Reported, load, rank
	}
}

// The keys of an answer, and of an endpoint in it.
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

// list reads the endpoints.
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

// data reads the load of an endpoint. One of which the scan is not sure takes only
// itself down the slow path, as one that is malformed takes nobody with it.
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
