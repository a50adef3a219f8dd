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
	p := &permissionsTest{newPermissions(f, "dynamo", log), t, f, journal, 0}
	p.OnUp(func() { p.ups++ })
	return p
}

// check compares whether NATS is up, how often OnUp was called, how many subjects are known, and
// which are denied.
func (p *permissionsTest) check(up bool, ups, known int, required, optional string) {
	p.t.Helper()
	n := &p.fleet.Diagnostics
	got := fmt.Sprintln(p.fleet.Stats.NATS.Up(), p.ups, len(n.Subjects()), n.RefusedSubjects(true), n.RefusedSubjects(false))
	if want := fmt.Sprintln(up, ups, known, "["+required+"]", "["+optional+"]"); got != want {
		p.t.Errorf("up, calls of OnUp, known subjects, denied required ones, denied optional ones: %s, want %s", got, want)
	}
}

// deny records a denial of a subject that the program uses.
func (p *permissionsTest) deny(subject string, publishing, isNew bool) {
	p.t.Helper()
	if known, got := p.RecordDenial(subject, publishing); !known || got != isNew {
		p.t.Errorf("%s: known %v, new %v; want new: %v", subject, known, got, isNew)
	}
}

func TestPermissionsUpWhenRequiredSubjectsAllowed(t *testing.T) {
	const subscriptions = 9 // hit rates, loads, forward passes, traces and inboxes
	p := newPermissionsTest(t)
	p.check(false, 0, 0, "", "")
	p.SetConnected(true)
	p.check(false, 0, 0, "", "") // the server may still deny them
	p.confirm()
	p.check(true, 1, subscriptions, "", "")

	p.deny(hitRateSubject, false, true)
	p.check(false, 1, subscriptions, hitRateSubject, "")
	p.deny(hitRateSubject, false, false)
	p.deny(forwardPassSubject, false, true)
	p.check(false, 1, subscriptions, hitRateSubject, forwardPassSubject)
	p.BeginUse(hitRateSubject)
	p.deny(hitRateSubject, false, false)
	p.ConfirmUse(hitRateSubject)
	p.check(false, 1, subscriptions, hitRateSubject, forwardPassSubject)
	p.BeginUse(hitRateSubject)
	p.check(false, 1, subscriptions, hitRateSubject, forwardPassSubject) // not known before the use is confirmed
	p.ConfirmUse(hitRateSubject)
	p.check(true, 2, subscriptions, "", forwardPassSubject)
	p.ConfirmUse(hitRateSubject)
	p.deny(hitRateSubject, false, true) // the permission is revoked again
	p.check(false, 2, subscriptions, hitRateSubject, forwardPassSubject)

	p.SetConnected(false)
	p.check(false, 2, 0, "", "")
	p.SetConnected(true)
	p.deny(hitRateSubject, false, false) // denied before, too
	p.confirm()
	p.check(false, 2, subscriptions, hitRateSubject, "")
	p.SetConnected(false)
	p.SetConnected(true)
	p.confirm()
	p.check(true, 3, subscriptions, "", "")
	if n := p.fleet.Stats.Failures(stats.PeerNATS); n != 6 {
		t.Errorf("%d failures are counted, want one for each denial", n)
	}
	if n := p.log.Count("NATS grants a permission that it denied before"); n != 3 {
		t.Errorf("%d log lines say that a permission is granted again, want 3:\n%s", n, p.log)
	}
}

func TestPermissionsOfPublishingKnownAfterUse(t *testing.T) {
	p := newPermissionsTest(t)
	p.SetConnected(true)
	p.confirm()
	p.BeginUse(statsSubject)
	p.deny("$SRV.STATS.dynamo_backend", true, true)
	p.deny("$SRV.STATS.dynamo_backend_020af9f2", true, false)
	p.ConfirmUse(statsSubject)
	p.check(false, 1, 10, statsSubject, "")
	p.SetConnected(false)
	p.SetConnected(true)
	p.confirm()
	p.check(false, 1, 10, statsSubject, "") // until it is used again
	p.BeginUse(statsSubject)
	p.ConfirmUse(statsSubject)
	p.check(true, 2, 10, "", "")
	p.deny("namespace.dynamo.l2c.backend.generate", true, true)
	p.check(true, 2, 11, "", "namespace.dynamo.l2c.>")
	p.Reset("namespace.dynamo.l2c.>") // nothing is published on it any more
	p.check(true, 2, 10, "", "")
	p.BeginUse(statsSubject)
	p.deny("$SRV.STATS.dynamo_backend", true, true)
	p.ConfirmUse(statsSubject)
	p.check(false, 2, 10, statsSubject, "")
	p.Reset(statsSubject) // no worker is left to poll
	p.check(true, 3, 9, "", "")
	if known, _ := p.RecordDenial(hitRateSubject, true); known {
		t.Error("nothing is published on the subject of hit rates")
	}
	if known, _ := p.RecordDenial("elsewhere", false); known {
		t.Error("nothing is subscribed to elsewhere")
	}
}

// TestPermissionsDenialWithoutSubject records denials that name no subject, such as that of more
// subscriptions than the limit. They mean the pending subscriptions, or else all.
func TestPermissionsDenialWithoutSubject(t *testing.T) {
	p := newPermissionsTest(t)
	p.SetConnected(true)
	p.confirm()
	p.deny("", false, false)
	if n := len(p.fleet.Diagnostics.RefusedSubjects(true)) + len(p.fleet.Diagnostics.RefusedSubjects(false)); n != 9 {
		t.Errorf("%d subscriptions are denied, want all", n)
	}
	for _, s := range p.fleet.Diagnostics.Subjects() {
		p.BeginUse(s.Name)
		if s.Name == hitRateSubject {
			p.deny("", false, false)
		}
		p.ConfirmUse(s.Name)
	}
	p.check(false, 1, 9, hitRateSubject, "")
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
