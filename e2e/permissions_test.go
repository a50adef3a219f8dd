package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// restrictedNATS is a program at a NATS server whose permissions for it the test changes.
type restrictedNATS struct {
	*server
	bus     *devstack.NATSServer
	nats    *nats.Conn // a connection of a user with all permissions
	worker  *process.Process
	granted natsserver.Permissions
	hits    int // hits published while the program could receive them
}

// newRestrictedNATS runs the program on these namespaces beside a worker of 0.5.1, with the
// permissions that SECURITY.md lists except for some subjects.
func newRestrictedNATS(t *testing.T, namespaces string, without ...string) *restrictedNATS {
	t.Helper()
	s := newStack(t)
	user := documentedUser(t)
	g := &restrictedNATS{granted: natsserver.Permissions{Publish: &natsserver.SubjectPermission{}, Subscribe: &natsserver.SubjectPermission{}}}
	all := user.Permissions
	for from, to := range map[*natsserver.SubjectPermission]*natsserver.SubjectPermission{all.Publish: g.granted.Publish, all.Subscribe: g.granted.Subscribe} {
		for _, subject := range from.Allow {
			if strings.HasSuffix(namespaces, "*") {
				subject = strings.Replace(subject, "namespace.dynamo.", "namespace.*.", 1)
			}
			to.Allow = append(to.Allow, subject)
		}
	}
	user.Permissions = g.allExcept(without)
	g.bus = startProtectedNATS(t, user)
	g.worker = start(t, "mock_worker", append(natsEnv(g.bus, admin, adminPassword), "ETCD_ENDPOINTS="+s.Etcd.Endpoint()), "--event-interval", "0")
	g.server = serve(t, append(natsEnv(g.bus, user.Username, user.Password), "ETCD_ENDPOINTS="+s.Etcd.Endpoint()), "--namespace", namespaces, "--poll-interval", "0.5")
	nc, err := nats.Connect(g.bus.URL(), nats.UserInfo(admin, adminPassword), nats.Timeout(testutil.WaitTimeout))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	g.nats = nc
	return g
}

// allExcept returns all permissions except those for some subjects.
func (g *restrictedNATS) allExcept(without []string) *natsserver.Permissions {
	part := func(of *natsserver.SubjectPermission) *natsserver.SubjectPermission {
		some := slices.DeleteFunc(slices.Clone(of.Allow), func(s string) bool { return slices.Contains(without, s) })
		if len(some) == 0 {
			return &natsserver.SubjectPermission{Deny: []string{">"}}
		}
		return &natsserver.SubjectPermission{Allow: some}
	}
	return &natsserver.Permissions{Publish: part(g.granted.Publish), Subscribe: part(g.granted.Subscribe)}
}

// deny has the server deny exactly these subjects from now on.
func (g *restrictedNATS) deny(without ...string) {
	g.t.Helper()
	err := g.bus.Reload(func(o *natsserver.Options) {
		o.Users = slices.Clone(o.Users)
		for i, u := range o.Users {
			if u.Permissions != nil {
				changed := *u
				changed.Permissions = g.allExcept(without)
				o.Users[i] = &changed
			}
		}
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// waitForSubscriptions waits until the metric shows for each subject whether it is
// permitted.
func (g *restrictedNATS) waitForSubscriptions(need string, permitted bool, subjects ...string) {
	g.t.Helper()
	want := make(samples)
	for _, s := range subjects {
		want[fmt.Sprintf("dynamo_metrics_subscribed{need=%q,subject=%q}", need, s)] = map[bool]string{true: "1", false: "0"}[permitted]
	}
	g.waitForSamples(want)
}

// waitForHits publishes hit rates until they are counted.
func (g *restrictedNATS) waitForHits() {
	g.t.Helper()
	const events = 30
	for range events {
		if err := g.nats.Publish("namespace.dynamo.kv-hit-rate", []byte(`{"worker_id":7,"isl_blocks":10,"overlap_blocks":5}`)); err != nil {
			g.t.Fatal(err)
		}
	}
	g.hits += events
	g.waitForSamples(samples{messages(stats.HitRate): fmt.Sprint(g.hits)})
}

// waitForPermissionProblem waits until the snapshot has a problem of this severity that
// names these subjects, or no such problem if there are no names.
func (g *restrictedNATS) waitForPermissionProblem(severity string, names ...string) {
	g.t.Helper()
	testutil.Until(g.t, func() error {
		_, body := get(g.url + "/api/v1/fleet")
		var all struct {
			Problems []struct{ Kind, ID, Severity, Title, Detail string }
		}
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			return err
		}
		found := ""
		for _, p := range all.Problems {
			if p.ID == "connection:nats" {
				return errors.New(p.Title)
			}
			if p.Kind == "permission" {
				found = p.Severity
				for _, n := range names {
					if !strings.Contains(p.Detail, n) {
						return fmt.Errorf("%s lacks %s", p.Detail, n)
					}
				}
			}
		}
		if found != severity {
			return fmt.Errorf("a missing permission is %q, want %q", found, severity)
		}
		return nil
	})
}

// TestNATSPermissionRestoredRestoresEvents checks that events continue when a permission is
// granted that was missing at the start or revoked while the program ran, once or
// repeatedly. Until then the program names the subject.
func TestNATSPermissionRestoredRestoresEvents(t *testing.T) {
	t.Parallel()
	for _, namespaces := range []string{"dynamo", "dyn*", "*"} {
		t.Run(namespaces, func(t *testing.T) {
			t.Parallel()
			hits := "namespace.dynamo.kv-hit-rate"
			if namespaces != "dynamo" {
				hits = "namespace.*.kv-hit-rate"
			}
			g := newRestrictedNATS(t, namespaces, hits)
			for n := range 2 {
				g.waitForSubscriptions("required", false, hits)
				g.waitForSamples(samples{`dynamo_metrics_connected{system="nats"}`: "0"})
				g.waitUntilNotReady("NATS denies the permission for " + hits)
				g.waitForPermissionProblem("bad", hits)
				g.deny()
				g.waitForSubscriptions("required", true, hits)
				g.waitUntilReady()
				g.waitForSamples(samples{`dynamo_metrics_connected{system="nats"}`: "1"})
				g.waitForPermissionProblem("")
				g.waitForHits()
				if logged := len(g.LinesWith("NATS denies a permission")); logged != 1+n {
					t.Errorf("denials are logged %d times, want one for each", logged)
				}
				if n == 0 {
					g.deny(hits)
				}
			}
			if logged := len(g.LinesWith("NATS grants a permission that it denied before")); logged != 2 {
				t.Errorf("the grant is logged %d times, want twice", logged)
			}
		})
	}
}

// TestNATSPermissionRestoredRestoresPolls checks the permissions to send polls and to
// receive replies. Meanwhile no worker counts as missing.
func TestNATSPermissionRestoredRestoresPolls(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"$SRV.STATS.*", "_INBOX.dynamo-metrics.>"} {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			g := newRestrictedNATS(t, "dynamo")
			answering := samples{workersSeries("generate", "answering"): "1", workersSeries("generate", "silent"): "0"}
			g.waitForSamples(answering)
			g.waitUntilReady()
			before := len(g.LinesWith("No endpoints found")) // while the worker was absent
			for range 2 {
				g.deny(subject)
				g.waitForSubscriptions("required", false, subject)
				g.waitUntilNotReady("NATS denies the permission for " + subject)
				before := g.polls("error")
				g.waitFor(func(samples) error {
					if n := g.polls("error"); n < before+4 {
						return fmt.Errorf("%d polls failed, want some", n)
					}
					return nil
				})
				g.waitForSamples(answering)
				g.deny()
				g.waitForSubscriptions("required", true, subject)
				g.waitUntilReady()
				ok := g.polls("ok")
				g.waitFor(func(samples) error {
					if n := g.polls("ok"); n < ok+2 {
						return fmt.Errorf("%d polls are answered", n)
					}
					return nil
				})
			}
			if n := len(g.LinesWith("No endpoints found")) - before; n > 0 {
				t.Errorf("%d lines report that no endpoint was found, although none could be polled", n)
			}
		})
	}
}

// TestNATSPermissionToPollIsOptionalWithoutWorkers checks that a lack of the permission
// does not matter without workers: the program could not notice that it was granted.
func TestNATSPermissionToPollIsOptionalWithoutWorkers(t *testing.T) {
	t.Parallel()
	g := newRestrictedNATS(t, "dynamo")
	g.waitForSamples(samples{workersSeries("generate", "answering"): "1"})
	g.deny("$SRV.STATS.*")
	g.waitForSubscriptions("required", false, "$SRV.STATS.*")
	g.worker.Terminate()
	g.waitForSamples(samples{`dynamo_metrics_connected{system="nats"}`: "1"})
	g.waitForPermissionProblem("")
	g.waitUntilReady()
}

func (g *restrictedNATS) polls(result string) (n int) {
	g.t.Helper()
	p, err := g.scrape()
	if err != nil {
		g.t.Fatal(err)
	}
	fmt.Sscan(p[fmt.Sprintf("dynamo_metrics_polls_total{result=%q}", result)], &n)
	return n
}

// TestNATSPermissionForOptionalSubjectsIsOptional checks that an installation with the
// permissions of an earlier release stays ready.
func TestNATSPermissionForOptionalSubjectsIsOptional(t *testing.T) {
	t.Parallel()
	optional := []string{
		"namespace.dynamo.forward-pass-metrics", "namespace.dynamo.component.*.forward-pass-metrics",
		"namespace.dynamo.component.*.endpoint.*.forward-pass-metrics", "dynamo.request_trace.v1", "namespace.dynamo.l2c.>",
	}
	g := newRestrictedNATS(t, "dynamo", optional...)
	g.waitUntilReady()
	g.waitForSubscriptions("optional", false, optional...)
	g.waitForPermissionProblem("info", optional...)
	g.waitForSamples(samples{`dynamo_metrics_connected{system="nats"}`: "1", `dynamo_metrics_disconnects_total{system="nats"}`: "0"})
	g.waitForHits()
	g.waitUntilReady()
	l2c, err := g.nats.SubscribeSync("namespace.dynamo.l2c.>")
	if err != nil {
		t.Fatal(err)
	}
	g.deny()
	g.waitForSubscriptions("optional", true, optional...)
	g.waitForPermissionProblem("")
	if _, err := l2c.NextMsgWithContext(t.Context()); err != nil {
		t.Error("l2c event:", err)
	}
}
