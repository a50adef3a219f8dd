package collect

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

func TestRegistryHintNamesRegisteredAndNearest(t *testing.T) {
	registered := []fleet.WorkerCount{
		{Endpoint: fleet.Endpoint{Component: "MyComponent", Name: "my_endpoint"}, Workers: 1},
		{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, Workers: 1},
		{Endpoint: fleet.Endpoint{Component: "backend", Name: "load_metrics"}, Workers: 12},
	}
	const all = "Registered in namespace dynamo: MyComponent/my_endpoint, backend/generate, backend/load_metrics"
	const silent, why = "Registered in namespace dynamo, but silent: ", "; do they hang, or do they use another NATS server?"
	for _, c := range []struct {
		target     fleet.Target
		registered []fleet.WorkerCount
		want       string
	}{
		{fleet.Target{Component: "my_component", Name: "my_endpoint"}, registered, all + "; did you mean --component MyComponent --endpoint my_endpoint?"},
		{fleet.Target{Component: "my_component"}, registered, all + "; did you mean --component MyComponent?"},
		{fleet.Target{Component: "backend", Name: "load-metrics"}, registered, all + "; did you mean --component backend --endpoint load_metrics?"},
		{fleet.Target{Component: "bakend", Name: "generate"}, registered, all + "; did you mean --component backend --endpoint generate?"},
		{fleet.Target{Component: "prefill", Name: "generate"}, registered, all},
		{fleet.Target{Component: "backend", Name: "clear"}, registered, all},
		{fleet.Target{Component: "backend", Name: "generate"}, registered, silent + "1 worker at backend/generate" + why},
		{fleet.Target{Component: "backend"}, registered, silent + "1 worker at backend/generate, 12 workers at backend/load_metrics" + why},
		{fleet.Target{}, registered, silent + "1 worker at MyComponent/my_endpoint, 1 worker at backend/generate, 12 workers at backend/load_metrics" + why},
		{fleet.Target{}, nil, "Nothing is registered in namespace dynamo: are the workers running, and does --namespace match?"},
	} {
		for _, namespaces := range []wire.Namespaces{"dynamo", "dyn*", "*"} {
			want := strings.Replace(c.want, "namespace dynamo", "namespace "+string(namespaces), 1)
			if got := registryHint(namespaces, c.target, c.registered); got != want {
				t.Errorf("%v:\n got %s\nwant %s", c.target, got, want)
			}
		}
	}
}

func TestRegistryHintLimitsNames(t *testing.T) {
	var many []fleet.WorkerCount
	want := "Registered in namespace dynamo: "
	for i := range 100 {
		e := fleet.Endpoint{Component: "c", Name: string(rune('!' + i%90))}
		many = append(many, fleet.WorkerCount{Endpoint: e, Workers: 1})
		if i < 20 {
			want += e.String() + ", "
		}
	}
	if got := registryHint("dynamo", fleet.Target{Component: "x"}, many); got != want+"…" {
		t.Errorf("got %s\nwant %s", got, want+"…")
	}
}

// newLogPoller returns a Poller for polls whose outcome the test sets, with a synced registry of
// these instances, and its log.
func newLogPoller(registered ...fleet.Instance) (*Poller, *logLines) {
	f, log := fleet.New(fleet.Target{Component: "backend", Name: "generate"}, 1000, true), new(logLines)
	all := make(map[string]fleet.InstanceEntry)
	for _, in := range registered {
		all[fmt.Sprint(in)] = fleet.InstanceEntry{Instance: in}
	}
	f.Sync(fleet.Listing{Instances: all})
	return &Poller{Fleet: f, Namespaces: "dynamo", Interval: time.Second, Log: slog.New(slog.NewTextHandler(log, nil))}, log
}

// logLines collects the lines of a log, without time and level.
type logLines struct{ all []string }

func (l *logLines) Write(b []byte) (int, error) {
	_, line, _ := strings.Cut(string(b), "msg=")
	l.all = append(l.all, strings.TrimSpace(line))
	return len(b), nil
}

func (l *logLines) count(what string) (n int) {
	for _, line := range l.all {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

// pollFor polls once per second for a while, and returns the seconds in which a line with this
// text was logged.
func (l *logLines) pollFor(p *Poller, seconds int, poll pollState, what string) (at []int) {
	for i := range seconds {
		before := l.count(what)
		p.logOutcome(poll)
		if l.count(what) > before {
			at = append(at, i)
		}
		time.Sleep(time.Second)
	}
	return at
}

const (
	noneFound = "No endpoints found matching subject dynamo_backend_020af9f2.generate"
	someFound = "Found endpoints matching subject dynamo_backend_020af9f2.generate"
)

func TestMissingLogBacksOff(t *testing.T) {
	for what, hint := range map[string]string{"unregistered": "Nothing is registered", "registered": "but silent: 1 worker at backend/generate;"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var in []fleet.Instance
				if what == "registered" {
					in = append(in, fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, ID: 1})
				}
				p, log := newLogPoller(in...)
				got, want := log.pollFor(p, 250, pollState{}, noneFound), []int{0, 2, 6, 14, 30, 62, 122, 182, 242}
				if !slices.Equal(got, want) {
					t.Errorf("logged after %v s, want %v", got, want)
				}
				if n := log.count(hint); n != len(want) {
					t.Errorf("%d hints, want one for each line:\n%s", n, strings.Join(log.all, "\n"))
				}
			})
		})
	}
}

// TestMissingLogSurvivesFlapping sets up workers that come and go. Some of the changes are logged,
// and each "found" follows a "not found".
func TestMissingLogSurvivesFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := newLogPoller()
		for range 300 {
			log.pollFor(p, 1, pollState{}, "")
			log.pollFor(p, 1, pollState{matched: true}, "")
		}
		lost, found := log.count(noneFound), log.count(someFound)
		if lost < 10 || lost > 16 || found != lost {
			t.Errorf("in ten minutes %d lines say that no endpoints are found, and %d that they are again; want a dozen of each", lost, found)
		}
		log.pollFor(p, 61, pollState{matched: true}, "")
		if at := log.pollFor(p, 7, pollState{}, noneFound); !slices.Equal(at, []int{0, 2, 6}) {
			t.Errorf("after a minute with endpoints, it is logged after %v s, want at once", at)
		}
	})
}

func TestMissingLogSilentWhileWorkersReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := newLogPoller()
		log.pollFor(p, 10, pollState{matched: true}, "")
		p.updateReconnects(1, time.Now())
		if at := log.pollFor(p, 8, pollState{}, noneFound); !slices.Equal(at, []int{5, 7}) {
			t.Errorf("logged %v s after NATS was connected again, want 5 and 7", at)
		}
		if log.count(someFound) > 0 {
			t.Errorf("the log says that endpoints are found, but not that they were missing:\n%s", strings.Join(log.all, "\n"))
		}
	})
}

// TestMissingLogSilentWhenRepliesDenied revokes the permission for replies while a poll waits
// for them.
func TestMissingLogSilentWhenRepliesDenied(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "c", Name: "e"})
	b.fleet.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 7}, fleet.Registration{NATS: true})
	log, out := testutil.NewLog()
	access := newPermissions(b.fleet, "dynamo", log)
	access.SetConnected(true)
	p := &Poller{Conn: b.conn, Fleet: b.fleet, Namespaces: "dynamo", Interval: 10 * time.Millisecond, Log: log, Permissions: access}
	if err := p.Listen(b.conn); err != nil {
		t.Fatal(err)
	}
	number := p.beginPoll(time.Now())
	if err := p.sendRequests(t.Context(), p.targetServices(), fmt.Sprintf("%s.%d", p.inbox, number), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	access.RecordDenial(inboxSubjects, false)
	p.finishPoll(time.Second, p.couldReceive(t.Context()))
	counts := &b.fleet.Stats
	if failed, empty := counts.Polls(stats.PollError), counts.Polls(stats.PollEmpty); failed != 1 || empty != 0 || out.Count("No endpoints found") != 0 {
		t.Errorf("%d polls failed and %d were empty:\n%s", failed, empty, out)
	}
}
