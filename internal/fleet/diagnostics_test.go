package fleet

import (
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestNotesKeepTheLastGapsAlone(t *testing.T) {
	var n Notes
	for i := range uint64(11) {
		n.Missed(Gap{Publisher: i, After: i, Before: i + 2, At: start})
	}
	gaps := n.Gaps()
	testutil.Equal(t, "gaps", len(gaps), 8)
	testutil.Equal(t, "the newest", gaps[7], Gap{Publisher: 10, After: 10, Before: 12, At: start})
}

func TestNotesKnowWhatIsRefused(t *testing.T) {
	var n Notes
	n.SetSubjects([]Subject{{Name: "a", Required: true, Refused: true}, {Name: "b", Refused: true}, {Name: "c", Required: true}, {Name: "d", Required: true, Refused: true}})
	testutil.Equal(t, "required", n.Refused(true), []string{"a", "d"})
	testutil.Equal(t, "optional", n.Refused(false), []string{"b"})
	n.SetSubjects(nil)
	testutil.Equal(t, "when nothing is known", len(n.Refused(true))+len(n.Subjects()), 0)
}

func TestNotesKnowWhoIsAwayAndSinceWhen(t *testing.T) {
	var n Notes
	a, b := Channel{Address: "tcp://a:1", Plane: ZMQPlane}, Channel{Address: "tcp://b:1", Plane: ZMQPlane}
	n.Away(b, start)
	n.Away(a, start.Add(time.Minute))
	testutil.Equal(t, "away for a while", n.AwaySince(start.Add(time.Second)), []Channel{b})
	testutil.Equal(t, "away at all", n.AwaySince(start.Add(time.Hour)), []Channel{a, b})
	n.Back(b)
	testutil.Equal(t, "away when one is back", n.AwaySince(start.Add(time.Hour)), []Channel{a})
}

func TestCensusCountsWhoIsRegisteredWatchedOrNot(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, prefill, 1, 2)
	register(f, generate, 3)
	poll(f, loaded(generate, static("a"), 1))
	testutil.Equal(t, "census", f.Census(), []Headcount{{generate, 1}, {prefill, 2}})
	deregister(f, prefill, 1, 2)
	testutil.Equal(t, "census when some have left", f.Census(), []Headcount{{generate, 1}})
}
