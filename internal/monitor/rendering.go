package monitor

import (
	"math"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// Rendering is a snapshot as JSON. It is made once for all clients, which share it: it must not
// be changed.
type Rendering struct {
	Sample       uint64 // the number of the sample; the next one has the next number
	History      bool   // whether it has the history
	HistoryTotal int    // how many steps of the history had been closed
	JSON         []byte
}

// NoHistory is a number of steps that the history never reaches.
const NoHistory = math.MaxInt

// Render returns the newest snapshot, and a channel that is closed when there is a newer one. The
// snapshot has the history if more steps have been closed than the client has seen.
func (m *Monitor) Render(seen int) (*Rendering, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh()
	history := seen < m.historyClock.total
	slot := ifElse(history, 1, 0)
	if m.renderings[slot] == nil {
		// A rendering is about as long as the last one was.
		d := jsonWriter{b: make([]byte, 0, m.renderingSize[slot])}
		m.writeSnapshot(&d, history)
		m.renderingSize[slot] = len(d.b) + len(d.b)/16
		m.renderings[slot] = &Rendering{Sample: m.sampleCount, History: history, HistoryTotal: m.historyClock.total, JSON: d.b}
	}
	return m.renderings[slot], m.updated
}

// RenderWorker returns a worker and its history as JSON. It reports false if there is no worker
// with this key.
func (m *Monitor) RenderWorker(key string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh()
	var d jsonWriter
	found := m.writeWorker(&d, key)
	return d.b, found
}

// RenderSignals returns, as JSON, the signals that an autoscaler needs about an endpoint in these
// namespaces. If they are stale, it returns the reason instead.
func (m *Monitor) RenderSignals(of wire.Namespaces, e fleet.Endpoint) (json []byte, stale string) {
	d, stale := m.signals(of, e)
	return d.b, stale
}

// Done returns a channel that is closed when Run has ended.
func (m *Monitor) Done() <-chan struct{} { return m.done }
