package collect

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

const hitRateSubject, forwardPassSubject = "namespace.dynamo.kv-hit-rate", "namespace.dynamo.forward-pass-metrics"

// permissionsTest is a Permissions whose updates are recorded.
type permissionsTest struct {
	*Permissions
	t     *testing.T
	fleet *fleet.Fleet
	log   *testutil.Log
	ups   int
}

func newPermissionsTest(t *testing.T) *permissionsTest {
	log, journal := testutil.NewLog()
	f := fleet.New(fleet.Target{}, 10, true)
	f.Stats.NATS.MarkUsed()
	a := &permissionsTest{newPermissions(f, "dynamo", log), t, f, journal, 0}
	a.OnUp(func() { a.ups++ })
	return a
}

// check compares whether NATS is up, how often OnUp was called, how many subjects are known, and
// which are denied.
func (a *permissionsTest) check(up bool, ups, known int, required, optional string) {
	a.t.Helper()
	n := &a.fleet.Diagnostics
	got := fmt.Sprintln(a.fleet.Stats.NATS.Up(), a.ups, len(n.Subjects()), n.RefusedSubjects(true), n.RefusedSubjects(false))
	if want := fmt.Sprintln(up, ups, known, "["+required+"]", "["+optional+"]"); got != want {
		a.t.Errorf("up, calls of OnUp, known subjects, denied required ones, denied optional ones: %s, want %s", got, want)
	}
}

// deny records a denial of a subject that the program uses.
func (a *permissionsTest) deny(subject string, publishing, isNew bool) {
	a.t.Helper()
	if known, got := a.RecordDenial(subject, publishing); !known || got != isNew {
		a.t.Errorf("%s: known %v, new %v; want new: %v", subject, known, got, isNew)
	}
}

func TestPermissionsUpWhenRequiredSubjectsAllowed(t *testing.T) {
	const subscriptions = 9 // hit rates, loads, forward passes, traces and inboxes
	a := newPermissionsTest(t)
	a.check(false, 0, 0, "", "")
	a.SetConnected(true)
	a.check(false, 0, 0, "", "") // the server may still deny them
	a.confirm()
	a.check(true, 1, subscriptions, "", "")

	a.deny(hitRateSubject, false, true)
	a.check(false, 1, subscriptions, hitRateSubject, "")
	a.deny(hitRateSubject, false, false)
	a.deny(forwardPassSubject, false, true)
	a.check(false, 1, subscriptions, hitRateSubject, forwardPassSubject)
	a.BeginUse(hitRateSubject)
	a.deny(hitRateSubject, false, false)
	a.ConfirmUse(hitRateSubject)
	a.check(false, 1, subscriptions, hitRateSubject, forwardPassSubject)
	a.BeginUse(hitRateSubject)
	a.check(false, 1, subscriptions, hitRateSubject, forwardPassSubject) // not known before the use is confirmed
	a.ConfirmUse(hitRateSubject)
	a.check(true, 2, subscriptions, "", forwardPassSubject)
	a.ConfirmUse(hitRateSubject)
	a.deny(hitRateSubject, false, true) // the permission is revoked again
	a.check(false, 2, subscriptions, hitRateSubject, forwardPassSubject)

	a.SetConnected(false)
	a.check(false, 2, 0, "", "")
	a.SetConnected(true)
	a.deny(hitRateSubject, false, false) // denied before, too
	a.confirm()
	a.check(false, 2, subscriptions, hitRateSubject, "")
	a.SetConnected(false)
	a.SetConnected(true)
	a.confirm()
	a.check(true, 3, subscriptions, "", "")
	if n := a.fleet.Stats.Failures(stats.PeerNATS); n != 6 {
		t.Errorf("%d failures are counted, want one for each denial", n)
	}
	if n := a.log.Count("NATS grants a permission that it denied before"); n != 3 {
		t.Errorf("%d log lines say that a permission is granted again, want 3:\n%s", n, a.log)
	}
}

func TestPermissionsOfPublishingKnownAfterUse(t *testing.T) {
	a := newPermissionsTest(t)
	a.SetConnected(true)
	a.confirm()
	a.BeginUse(statsSubject)
	a.deny("$SRV.STATS.dynamo_backend", true, true)
	a.deny("$SRV.STATS.dynamo_backend_020af9f2", true, false)
	a.ConfirmUse(statsSubject)
	a.check(false, 1, 10, statsSubject, "")
	a.SetConnected(false)
	a.SetConnected(true)
	a.confirm()
	a.check(false, 1, 10, statsSubject, "") // until it is used again
	a.BeginUse(statsSubject)
	a.ConfirmUse(statsSubject)
	a.check(true, 2, 10, "", "")
	a.deny("namespace.dynamo.l2c.backend.generate", true, true)
	a.check(true, 2, 11, "", "namespace.dynamo.l2c.>")
	a.Reset("namespace.dynamo.l2c.>") // nothing is published on it any more
	a.check(true, 2, 10, "", "")
	a.BeginUse(statsSubject)
	a.deny("$SRV.STATS.dynamo_backend", true, true)
	a.ConfirmUse(statsSubject)
	a.check(false, 2, 10, statsSubject, "")
	a.Reset(statsSubject) // no worker is left to poll
	a.check(true, 3, 9, "", "")
	if known, _ := a.RecordDenial(hitRateSubject, true); known {
		t.Error("nothing is published on the subject of hit rates")
	}
	if known, _ := a.RecordDenial("elsewhere", false); known {
		t.Error("nothing is subscribed to elsewhere")
	}
}

// TestPermissionsDenialWithoutSubject has denials that name no subject, such as that of more
// subscriptions than the limit. They mean the pending subscriptions, or else all.
func TestPermissionsDenialWithoutSubject(t *testing.T) {
	a := newPermissionsTest(t)
	a.SetConnected(true)
	a.confirm()
	a.deny("", false, false)
	if n := len(a.fleet.Diagnostics.RefusedSubjects(true)) + len(a.fleet.Diagnostics.RefusedSubjects(false)); n != 9 {
		t.Errorf("%d subscriptions are denied, want all", n)
	}
	for _, s := range a.fleet.Diagnostics.Subjects() {
		a.BeginUse(s.Name)
		if s.Name == hitRateSubject {
			a.deny("", false, false)
		}
		a.ConfirmUse(s.Name)
	}
	a.check(false, 1, 9, hitRateSubject, "")
}

func TestPermissionsCoverWildcardSubjects(t *testing.T) {
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
		g := permission{Subject: fleet.Subject{Name: c.grant}}
		if got := g.covers(c.subject); got != c.want {
			t.Errorf("%s covers %s: %v, want %v", c.grant, c.subject, got, c.want)
		}
	}
}

func TestPermissionsNilDeniesNothing(t *testing.T) {
	var a *Permissions
	a.BeginUse(statsSubject)
	a.ConfirmUse(statsSubject)
	if a.Denied(statsSubject) {
		t.Error("a nil Permissions denies a subject")
	}
}
