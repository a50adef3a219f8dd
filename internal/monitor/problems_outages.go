package monitor

import (
	"time"

	"dynamo-metrics/internal/stats"
)

// outage is how long a connection that events come by was lost. What was published
// meanwhile never arrives, and no sequence may show it.
type outage struct {
	recentCounter      // milliseconds
	ended         bool // since the last look
}

// take looks at the connection. While no event comes by it, nothing is lost with it.
func (o *outage) update(l *stats.ConnState, matters bool) {
	lost := uint64(l.Outage() / time.Millisecond)
	if !matters {
		o.last, o.sinceSample, o.started = lost, 0, true
	} else {
		o.recentCounter.update(lost)
	}
	o.ended = o.sinceSample > 0
}

// outageOver is raised when a connection is back: while it is away that is a problem of its own.
func measureOutage(m, _ *Monitor) number {
	return boolMeasure(m.outages[outageNATS].ended || m.outages[outageZMQ].ended)
}

// The connections that events come by.
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
		title:  "For " + ifElse(lost < time.Second, "less than a second", formatDuration(lost)) + " no event could arrive",
		detail: "In the last 15 min the connection to " + joinAnd(by) + " was lost. What was published meanwhile never arrived, and cannot be counted: hit rates lack it, and loads were as old as that.",
		check:  "did the server restart? A server also cuts off a client that does not read for seconds: was this program, or its machine, paused or short of CPU?",
	}
}
