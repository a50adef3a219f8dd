package monitor

import "fmt"

// Limits of what the monitor keeps and of what a snapshot lists. Aggregates always cover all
// workers.
const (
	maxEndpoints        = 4096    // endpoints
	maxRows             = 131_072 // workers at endpoints, and their ranks
	maxUnregisteredRows = 1000    // rows of workers whose registration is gone
	maxProblems         = 200     // problems that a snapshot lists
	maxDepartures       = 65_536  // workers that have left in the last ten minutes

	// maxRowBytes bounds the rows of a snapshot in bytes, because names may be long: the rows of
	// ten thousand workers take 3.5 MB. The row keys in problems may take another
	// maxProblemBytes.
	maxRowBytes     = 32 << 20
	maxProblemBytes = 4 << 20
)

// leftOut counts the endpoints, rows and problems that there is no room for.
type leftOut struct{ endpoints, rows, problems int }

// omitted returns what the last sample and the last written snapshot leave out.
func (m *Monitor) omitted() leftOut {
	l := m.leftOut
	l.rows += m.unwrittenRows
	return l
}

func (m *Monitor) writeLeftOut(d *jsonWriter) {
	l := m.omitted()
	if l == (leftOut{}) {
		return
	}
	d.field("leftOut")
	d.open('{')
	d.int("endpoints", int64(l.endpoints))
	d.int("workers", int64(l.rows))
	d.int("problems", int64(l.problems))
	d.close('}')
}

// measureLeftOut also checks the sample before, because a snapshot is written after its sample.
func measureLeftOut(m, _ *Monitor) number {
	return boolMeasure(m.leftOut != leftOut{} || m.previousLeftOut != leftOut{})
}

func leftOutMessage(m *Monitor, p *problem) message {
	var all []string
	l := m.omitted()
	for _, c := range []struct {
		n    int
		what string
	}{{l.endpoints, "endpoint"}, {l.rows, "row"}, {l.problems, "problem"}} {
		if c.n > 0 {
			all = append(all, plural(c.n, c.what))
		}
	}
	return message{
		title: "Not everything is shown here",
		detail: fmt.Sprintf("There is no room for %s. The limits are %s endpoints, %s rows of workers and ranks (%s of them for workers whose registration is gone; %d MiB in total) and %d problems. Sums and metrics include everything.",
			ifElse(len(all) > 0, joinAnd(all), "some of it"), formatCount(maxEndpoints), formatCount(maxRows), formatCount(maxUnregisteredRows), maxRowBytes>>20, maxProblems),
		check: "is the fleet that large? Then run several programs that watch a part of it each, by --namespace and --component. If not, something registers or publishes invented names.",
	}
}
