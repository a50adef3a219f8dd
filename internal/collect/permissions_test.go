package collect

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

const hitRates, passes = "namespace.dynamo.kv-hit-rate", "namespace.dynamo.forward-pass-metrics"

// access is an Access, and how it is told.
type access struct {
	*Access
	t     *testing.T
	fleet *fleet.Fleet
	log   *testutil.Log
	ups   int
}

func newTestAccess(t *testing.T) *access {
	log, journal := testutil.NewLog()
	f := fleet.New(fleet.Target{}, 10, true)
	f.Stats.NATS.MarkUsed()
	a := &access{newAccess(f, "dynamo", log), t, f, journal, 0}
	a.OnUp(func() { a.ups++ })
	return a
}

// is compares whether NATS is up, how often that was told, and what is known and refused.
func (a *access) is(up bool, ups, known int, required, optional string) {
	a.t.Helper()
	n := &a.fleet.Diagnostics
	got := fmt.Sprintln(a.fleet.Stats.NATS.Up(), a.ups, len(n.Subjects()), n.RefusedSubjects(true), n.RefusedSubjects(false))
	if want := fmt.Sprintln(up, ups, known, "["+required+"]", "["+optional+"]"); got != want {
		a.t.Errorf("up, times, subjects known, required and optional ones refused: %s, want %s", got, want)
	}
}

// refuse has the server refuse a subject, which is one of ours, and may be news.
func (a *access) refuse(subject string, publishing, news bool) {
	a.t.Helper()
	if known, got := a.Refused(subject, publishing); !known || got != news {
		a.t.Errorf("%s: known %v, news %v; want news: %v", subject, known, got, news)
	}
}

func TestNATSIsUpWhenNothingRequiredIsRefused(t *testing.T) {
	const subscriptions = 9 // hit rates, loads, forward passes, traces and inboxes
	a := newTestAccess(t)
	a.is(false, 0, 0, "", "")
	a.Connected(true)
	a.is(false, 0, 0, "", "") // the server may refuse them yet
	a.confirm()
	a.is(true, 1, subscriptions, "", "")

	a.refuse(hitRates, false, true)
	a.is(false, 1, subscriptions, hitRates, "")
	a.refuse(hitRates, false, false)
	a.refuse(passes, false, true)
	a.is(false, 1, subscriptions, hitRates, passes)
	a.Ask(hitRates)
	a.refuse(hitRates, false, false)
	a.Settle(hitRates)
	a.is(false, 1, subscriptions, hitRates, passes)
	a.Ask(hitRates)
	a.is(false, 1, subscriptions, hitRates, passes) // it is not known before it is settled
	a.Settle(hitRates)
	a.is(true, 2, subscriptions, "", passes)
	a.Settle(hitRates)
	a.refuse(hitRates, false, true) // revoked again
	a.is(false, 2, subscriptions, hitRates, passes)

	a.Connected(false)
	a.is(false, 2, 0, "", "")
	a.Connected(true)
	a.refuse(hitRates, false, false) // as before
	a.confirm()
	a.is(false, 2, subscriptions, hitRates, "")
	a.Connected(false)
	a.Connected(true)
	a.confirm()
	a.is(true, 3, subscriptions, "", "")
	if n := a.fleet.Stats.Failures(stats.PeerNATS); n != 6 {
		t.Errorf("%d failures are counted, want one for each refusal", n)
	}
	if n := a.log.Count("NATS grants a permission that it denied before"); n != 3 {
		t.Errorf("said %d times that a permission is there again:\n%s", n, a.log)
	}
}

func TestWhatIsPublishedIsKnownOnceItIsTried(t *testing.T) {
	a := newTestAccess(t)
	a.Connected(true)
	a.confirm()
	a.Ask(statsSubject)
	a.refuse("$SRV.STATS.dynamo_backend", true, true)
	a.refuse("$SRV.STATS.dynamo_backend_020af9f2", true, false)
	a.Settle(statsSubject)
	a.is(false, 1, 10, statsSubject, "")
	a.Connected(false)
	a.Connected(true)
	a.confirm()
	a.is(false, 1, 10, statsSubject, "") // until it is tried again
	a.Ask(statsSubject)
	a.Settle(statsSubject)
	a.is(true, 2, 10, "", "")
	a.refuse("namespace.dynamo.l2c.backend.generate", true, true)
	a.is(true, 2, 11, "", "namespace.dynamo.l2c.>")
	a.Forget("namespace.dynamo.l2c.>") // nothing is published any more
	a.is(true, 2, 10, "", "")
	a.Ask(statsSubject)
	a.refuse("$SRV.STATS.dynamo_backend", true, true)
	a.Settle(statsSubject)
	a.is(false, 2, 10, statsSubject, "")
	a.Forget(statsSubject) // no worker is left to be asked
	a.is(true, 3, 9, "", "")
	if known, _ := a.Refused(hitRates, true); known {
		t.Error("nothing is published on the subject of hit rates")
	}
	if known, _ := a.Refused("elsewhere", false); known {
		t.Error("nothing is subscribed to elsewhere")
	}
}

// TestARefusalThatNamesNoSubject, as of more subscriptions than there may be, is of what was
// asked for, and else of any.
func TestARefusalThatNamesNoSubject(t *testing.T) {
	a := newTestAccess(t)
	a.Connected(true)
	a.confirm()
	a.refuse("", false, false)
	if n := len(a.fleet.Diagnostics.RefusedSubjects(true)) + len(a.fleet.Diagnostics.RefusedSubjects(false)); n != 9 {
		t.Errorf("%d subscriptions are in doubt, want all", n)
	}
	for _, s := range a.fleet.Diagnostics.Subjects() {
		a.Ask(s.Name)
		if s.Name == hitRates {
			a.refuse("", false, false)
		}
		a.Settle(s.Name)
	}
	a.is(false, 1, 9, hitRates, "")
}

func TestGrantsCoverTheirSubjects(t *testing.T) {
	for _, c := range []struct {
		grant, subject string
		want           bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.b.c", false}, {"a.b", "a", false}, {"a.b", "a.c", false}, {"a.b", "", false},
		{"a.*", "a.b", true}, {"a.*", "a.b.c", false}, {"a.*", "a.*", true}, {"a.*.c", "a.b.c", true}, {"a.*.c", "a.b.d", false},
		{"a.>", "a.b", true}, {"a.>", "a.b.c", true}, {"a.>", "a", false}, {"a.>", "b.c", false}, {"a.>", "a.b.*", true},
		{"namespace.*.l2c.>", "namespace.dynamo-x.l2c.backend.generate", true},
		{"namespace.my.space.kv-hit-rate", "namespace.my.space.kv-hit-rate", true},
	} {
		g := grant{Subject: fleet.Subject{Name: c.grant}}
		if got := g.covers(c.subject); got != c.want {
			t.Errorf("%s covers %s: %v, want %v", c.grant, c.subject, got, c.want)
		}
	}
}

// TestNoAccessRefusesNothing.
func TestNoAccessRefusesNothing(t *testing.T) {
	var a *Access
	a.Ask(statsSubject)
	a.Settle(statsSubject)
	if a.Refuses(statsSubject) {
		t.Error("it refuses")
	}
}
