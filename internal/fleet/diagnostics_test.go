package fleet

import (
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestDiagnosticsKeepLastGaps(t *testing.T) {
	var d Diagnostics
	for i := range uint64(11) {
		d.AddGap(Gap{Publisher: i, After: i, Before: i + 2, At: start})
	}
	gaps := d.Gaps()
	testutil.Equal(t, "gaps", len(gaps), 8)
	testutil.Equal(t, "the newest", gaps[7], Gap{Publisher: 10, After: 10, Before: 12, At: start})
}

func TestDiagnosticsRefusedSubjects(t *testing.T) {
	var d Diagnostics
	d.SetSubjects([]Subject{{Name: "a", Required: true, Refused: true}, {Name: "b", Refused: true}, {Name: "c", Required: true}, {Name: "d", Required: true, Refused: true}})
	testutil.Equal(t, "required", d.RefusedSubjects(true), []string{"a", "d"})
	testutil.Equal(t, "optional", d.RefusedSubjects(false), []string{"b"})
	d.SetSubjects(nil)
	testutil.Equal(t, "subjects while not connected", len(d.RefusedSubjects(true))+len(d.Subjects()), 0)
}

func TestDiagnosticsUnreachableSince(t *testing.T) {
	var d Diagnostics
	a, b := Channel{Address: "tcp://a:1", Plane: ZMQPlane}, Channel{Address: "tcp://b:1", Plane: ZMQPlane}
	d.SetUnreachable(b, start)
	d.SetUnreachable(a, start.Add(time.Minute))
	testutil.Equal(t, "unreachable for some time", d.UnreachableSince(start.Add(time.Second)), []Channel{b})
	testutil.Equal(t, "unreachable for any time", d.UnreachableSince(start.Add(time.Hour)), []Channel{a, b})
	d.ClearUnreachable(b)
	testutil.Equal(t, "unreachable when one is reachable again", d.UnreachableSince(start.Add(time.Hour)), []Channel{a})
}

func TestWorkerCountsOfAllRegisteredEndpoints(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, prefill, 1, 2)
	register(f, generate, 3)
	poll(f, loaded(generate, static("a"), 1))
	testutil.Equal(t, "worker counts", f.WorkerCounts(), []WorkerCount{{generate, 1}, {prefill, 2}})
	deregister(f, prefill, 1, 2)
	testutil.Equal(t, "worker counts after some have left", f.WorkerCounts(), []WorkerCount{{generate, 1}})
}
