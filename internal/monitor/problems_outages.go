package monitor

import (
	"time"

	"dynamo-metrics/internal/stats"
)

// outage counts how long a connection that carries events was lost. Events that were published
// meanwhile never arrive, and sequence numbers may not show that.
type outage struct {
	recentCounter      // in milliseconds
	ended         bool // it ended since the last sample
}

// update reads the state of the connection. While it carries no events, an outage loses nothing.
func (o *outage) update(conn *stats.ConnState, matters bool) {
	lost := uint64(conn.Outage() / time.Millisecond)
	if !matters {
		o.last, o.sinceSample, o.started = lost, 0, true
	} else {
		o.recentCounter.update(lost)
	}
	o.ended = o.sinceSample > 0
}

// measureOutage holds when a connection is restored. Until then another problem is raised: that it is
// lost.
func measureOutage(m, _ *Monitor) number {
	return boolMeasure(m.outages[outageNATS].ended || m.outages[outageZMQ].ended)
}

// The connections that carry events.
const (
	outageNATS = iota
	outageZMQ
	outageCount
)

func outageMessage(m *Monitor, p *problem) message {
	lost, by := time.Duration(0), []string(nil)
	for i, name := range [outageCount]string{"NATS", "all ZMQ publishers"} {
		o := &m.outages[i]
		if n := o.sum(); n > 0 {
			lost += time.Duration(n) * time.Millisecond
			by = append(by, name)
		}
	}
	return message{
		title:  "No event could arrive for " + ifElse(lost < time.Second, "less than a second", formatDuration(lost)),
		detail: "In the last 15 min the connection to " + joinAnd(by) + " was lost. Events that were published meanwhile never arrived and cannot be counted: hit rates lack them, and loads were as old as the outage.",
		check:  "did the server restart? A server also disconnects a client that does not read for some seconds: was this program, or its machine, paused or short of CPU?",
	}
}
