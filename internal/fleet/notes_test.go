package fleet

import (
	"testing"
	"time"
)

func TestNotesKeepTheLastGapsAlone(t *testing.T) {
	var n Notes
	for i := range uint64(11) {
		n.Missed(Gap{Publisher: i, After: i, Before: i + 2, At: start})
	}
	gaps := n.Gaps()
	equal(t, "gaps", len(gaps), 8)
	equal(t, "the newest", gaps[7], Gap{Publisher: 10, After: 10, Before: 12, At: start})
}

func TestNotesKnowWhatIsRefused(t *testing.T) {
	var n Notes
	n.SetSubjects([]Subject{{Name: "a", Required: true, Refused: true}, {Name: "b", Refused: true}, {Name: "c", Required: true}, {Name: "d", Required: true, Refused: true}})
	equal(t, "required", n.Refused(true), []string{"a", "d"})
	equal(t, "optional", n.Refused(false), []string{"b"})
	n.SetSubjects(nil)
	equal(t, "when nothing is known", len(n.Refused(true))+len(n.Subjects()), 0)
}

func TestNotesKnowWhoIsAwayAndSinceWhen(t *testing.T) {
	var n Notes
	a, b := Channel{Address: "tcp://a:1", Plane: ZMQPlane}, Channel{Address: "tcp://b:1", Plane: ZMQPlane}
	n.Away(b, start)
	n.Away(a, start.Add(time.Minute))
	equal(t, "away for a while", n.AwaySince(start.Add(time.Second)), []Channel{b})
	equal(t, "away at all", n.AwaySince(start.Add(time.Hour)), []Channel{a, b})
	n.Back(b)
	equal(t, "away when one is back", n.AwaySince(start.Add(time.Hour)), []Channel{a})
}

func TestCensusCountsWhoIsRegisteredWatchedOrNot(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, prefill, 1, 2)
	register(f, generate, 3)
	poll(f, loaded(generate, static("a"), 1))
	equal(t, "census", f.Census(), []Headcount{{generate, 1}, {prefill, 2}})
	deregister(f, prefill, 1, 2)
	equal(t, "census when some have left", f.Census(), []Headcount{{generate, 1}})
}
