package monitor

import (
	"dynamo-metrics/internal/fleet"
)

// Sample is the state of the endpoints in the last sample of the fleet. It is shared and must not
// be changed.
type Sample struct {
	Number    uint64 // of the sample; each sample has another
	Endpoints []fleet.EndpointState
}

// LastSample returns the endpoints as they were in the last sample.
func (m *Monitor) LastSample() Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh()
	if m.lastSample.Number != m.sampleCount {
		m.lastSample = Sample{Number: m.sampleCount, Endpoints: make([]fleet.EndpointState, 0, len(m.endpoints))}
		for _, p := range m.endpoints {
			m.lastSample.Endpoints = append(m.lastSample.Endpoints, p.state())
		}
	}
	return m.lastSample
}

// state returns the endpoint as it was in the last sample, without the fields that only metrics
// show.
func (p *endpointStats) state() fleet.EndpointState {
	s := &p.aggregate
	return fleet.EndpointState{Endpoint: p.Endpoint, Counted: p.counted,
		Answering: s.answering, Silent: s.silent, Unregistered: s.unregistered, Malformed: s.malformed,
		Blocks: s.kvBlocks, Usage: s.kvUsage}
}
