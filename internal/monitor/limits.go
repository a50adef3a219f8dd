package monitor

import "fmt"

// What is remembered, and what a snapshot lists. The sums are over all workers, however
// many they are.
const (
	maxEndpoints        = 4096    // endpoints
	maxRows             = 131_072 // workers at endpoints, and ranks
	maxUnregisteredRows = 1000    // those of them whose registration is gone
	maxProblems         = 200     // that are listed
	maxDepartures       = 65_536  // workers that have left in the last ten minutes

	// mostText bounds the rows of a snapshot in bytes, since names may be long: those of
	// ten thousand workers are 3.5 MB. The rows of problems may have mostNamed more.
	maxRowBytes     = 32 << 20
	maxProblemBytes = 4 << 20
)

// leftOut is what there is no room for.
type leftOut struct{ endpoints, rows, problems int }

// missed is what the cut, and what was written of it, leave out.
func (g *Monitor) omitted() leftOut {
	l := g.leftOut
	l.rows += g.unwrittenRows
	return l
}

func (g *Monitor) writeLeftOut(d *jsonWriter) {
	l := g.omitted()
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

// cutShort also looks at the cut before: what is written is known later.
func measureLeftOut(g, _ *Monitor) number {
	return boolMeasure(g.leftOut != leftOut{} || g.previousLeftOut != leftOut{})
}

func leftOutMessage(g *Monitor, p *problem) message {
	var all []string
	l := g.omitted()
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
		detail: fmt.Sprintf("There is no room for %s. There is for %s endpoints, %s rows of workers and ranks (%s of them of workers whose registration is gone; %d MiB in all) and %d problems. The sums, and the metrics, are of everything.",
			ifElse(len(all) > 0, joinAnd(all), "some of it"), formatCount(maxEndpoints), formatCount(maxRows), formatCount(maxUnregisteredRows), maxRowBytes>>20, maxProblems),
		check: "is the fleet that large? Then have programs watch a part of it each, by --namespace and --component. Else something registers or publishes made-up names.",
	}
}
