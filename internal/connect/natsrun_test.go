package connect

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// fakeNATS speaks as much of NATS as a client needs to connect, and what a test wants.
type fakeNATS struct {
	t        *testing.T
	listener net.Listener
	conns    sync.WaitGroup

	mu       sync.Mutex
	refusal  string   // what each attempt to connect gets instead of an answer; "" takes it
	open     net.Conn // the connection there is
	accepted int      // connections that were taken
	subjects []string // subjects that were subscribed to on the last
}

func startFakeNATS(t *testing.T) *fakeNATS {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeNATS{t: t, listener: l}
	f.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.conns.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); f.send(""); f.conns.Wait() })
	return f
}

func (f *fakeNATS) url() string { return "nats://" + f.listener.Addr().String() }

func (f *fakeNATS) serve(c net.Conn) {
	defer c.Close()
	fmt.Fprint(c, `INFO {"server_id":"fake","version":"2.10.0","proto":1,"max_payload":1048576,"headers":true}`+"\r\n")
	for in, taken := bufio.NewScanner(c), false; in.Scan(); {
		word, rest, _ := strings.Cut(in.Text(), " ")
		f.mu.Lock()
		switch {
		case word == "PING" && !taken && f.refusal != "":
			fmt.Fprintf(c, "-ERR '%s'\r\n", f.refusal)
			f.mu.Unlock()
			return
		case word == "PING" && !taken:
			taken, f.open, f.subjects = true, c, nil
			f.accepted++
			fallthrough
		case word == "PING":
			fmt.Fprint(c, "PONG\r\n")
		case word == "SUB":
			subject, _, _ := strings.Cut(rest, " ")
			f.subjects = append(f.subjects, subject)
		}
		f.mu.Unlock()
	}
}

// say sends a line on the connection there is; an empty one cuts it.
func (f *fakeNATS) send(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		return
	}
	if line == "" {
		f.open.Close()
		return
	}
	fmt.Fprint(f.open, line+"\r\n")
}

func (f *fakeNATS) refuse(with string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusal = with
}

// has waits for the nth connection, and its subscriptions.
func (f *fakeNATS) waitConnections(connections int, subjects string) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if got := strings.Join(f.subjects, " "); f.accepted != connections || got != subjects {
			return fmt.Errorf("%d connections, subscribed to %q, want %d and %q", f.accepted, got, connections, subjects)
		}
		return nil
	})
}

// hold holds connections until the end of the test, each subscribed to x.
func runNATS(t *testing.T, servers string, getenv func(string) string, log *slog.Logger, hooks NATSHooks) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var holding sync.WaitGroup
	holding.Go(func() {
		err := RunNATS(ctx, servers, getenv, log, hooks, func(ctx context.Context, nc *nats.Conn) error {
			if _, err := Subscribe(nc, "x", func(*nats.Msg) {}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); holding.Wait() })
}

// TestRunNATSReplacesClosedConnection: nats.go closes for good what it is told in words that
// it does not know.
func TestRunNATSReplacesClosedConnection(t *testing.T) {
	t.Parallel()
	f := startFakeNATS(t)
	log, journal := testutil.NewLog()
	var status statusLog
	var failed atomic.Int64
	runNATS(t, f.url(), env(), log, NATSHooks{StatusChanged: status.add, AttemptFailed: func() { failed.Add(1) }})
	f.waitConnections(1, "x")
	testutil.Until(t, journal.HasCount("Connected to NATS", 1))
	for n := range 2 {
		f.send("-ERR 'The Moon Is Full'")
		f.waitConnections(2+n, "x")
		testutil.Until(t, journal.HasCount("Connected to NATS", 2+n))
	}
	if got := status.String(); got != "[true false true false true]" {
		t.Errorf("status heard %s", got)
	}
	if n := journal.Count("NATS has closed the connection; connecting goes on"); n != 2 || journal.Count("The Moon Is Full") != 2 {
		t.Errorf("want two lines that say why:\n%s", journal)
	}
	if n := failed.Load(); n != 2 {
		t.Errorf("%d failures, want 2", n)
	}
	f.send("-ERR 'Stale Connection'") // this one it knows
	f.waitConnections(4, "x")
}

// TestRunNATSRetriesAuthErrors, on the connection there was as well as
// on a new one.
func TestRunNATSRetriesAuthErrors(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{"lost": "", "closed": "-ERR 'The Moon Is Full'"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFakeNATS(t)
			log, journal := testutil.NewLog()
			var failed atomic.Int64
			runNATS(t, f.url(), env(), log, NATSHooks{AttemptFailed: func() { failed.Add(1) }})
			f.waitConnections(1, "x")
			all := []string{"Authorization Violation", "Nobody Knows"}
			if name == "lost" {
				all = append(all, "User Authentication Expired", "User Authentication Revoked", "Account Authentication Expired", "Maximum Connections Exceeded")
			}
			for n, refusal := range all {
				f.refuse(refusal)
				f.send(end)
				before := failed.Load()
				testutil.Until(t, func() error {
					if n := failed.Load() - before; n < 3 { // past where nats.go would have given up
						return fmt.Errorf("%d failures", n)
					}
					return nil
				})
				f.refuse("")
				f.waitConnections(2+n, "x")
			}
			if n := journal.Count("uthorization Violation") + journal.Count("uthorization violation"); n != 1 {
				t.Errorf("said %d times that the credentials are refused:\n%s", n, journal)
			}
		})
	}
	f := startFakeNATS(t) // at the start they are the end
	f.refuse("Authorization Violation")
	log, _ := testutil.NewLog()
	err := RunNATS(t.Context(), f.url(), env(), log, NATSHooks{}, func(context.Context, *nats.Conn) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "Authorization Violation") {
		t.Errorf("got %v, want that the credentials are refused", err)
	}
}

// TestRunNATSSurvivesCredentialChange: the password, and the server with it; then the
// user is removed, and comes back.
func TestRunNATSSurvivesCredentialChange(t *testing.T) {
	t.Parallel()
	user := func(password string) func(*server.Options) {
		return func(o *server.Options) {
			o.Users = []*server.User{{Username: "other", Password: "x"}}
			if password != "" {
				o.Users = append(o.Users, &server.User{Username: "metrics", Password: password})
			}
		}
	}
	s := startNATS(t, user("old"))
	config := s.Config()
	log, journal := testutil.NewLog()
	runNATS(t, s.URL(), env("NATS_AUTH_USERNAME", "metrics", "NATS_AUTH_PASSWORD", "old"), log, NATSHooks{})
	connected := func(times int) {
		t.Helper()
		testutil.Until(t, journal.HasCount("Connected to NATS", times))
	}
	refused := func(s interface{ Varz() *server.Varz }) {
		t.Helper()
		before := s.Varz().TotalConnections
		testutil.Until(t, func() error {
			if n := s.Varz().TotalConnections - before; n < 3 {
				return fmt.Errorf("%d attempts", n)
			}
			return nil
		})
	}
	connected(1)
	s.Close()
	changed := config
	changed.Tune = user("new")
	s = restart(t, changed)
	refused(s)
	s.Close()
	s = restart(t, config)
	connected(2)
	if err := s.Reload(user("")); err != nil {
		t.Fatal(err)
	}
	refused(s)
	if err := s.Reload(user("old")); err != nil {
		t.Fatal(err)
	}
	connected(3)
}

// TestRunNATSShortLivedPauseGrows soon after it was made.
func TestRunNATSShortLivedPauseGrows(t *testing.T) {
	for in, want := range map[int]time.Duration{0: 0, 1: 500 * time.Millisecond, 4: 2 * time.Second, 10: 5 * time.Second, 1000: 5 * time.Second} {
		if got := shortLivedPause(in); got != want {
			t.Errorf("after %d: %s, want %s", in, got, want)
		}
	}
}

// TestFlushNATSWaitsForDenials, so that what was not heard of is permitted.
func TestFlushNATSWaitsForDenials(t *testing.T) {
	t.Parallel()
	s := startNATS(t, func(o *server.Options) {
		o.MaxSubs = 2
		o.Users = []*server.User{{Username: "user", Password: "user", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"yes.>"}}, Subscribe: &server.SubjectPermission{Allow: []string{"yes.>"}},
		}}}
	})
	log, journal := testutil.NewLog()
	var mu sync.Mutex
	var heard []string
	refused := func(subject string, publishing bool) (known, isNew bool) {
		time.Sleep(time.Millisecond) // someone else has the processor
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, fmt.Sprintf("%s %v", subject, publishing))
		return subject != "no.strange", subject == "no.news"
	}
	connections := make(chan *nats.Conn, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var holding sync.WaitGroup
	holding.Go(func() {
		RunNATS(ctx, s.URL(), env(), log, NATSHooks{Denied: refused}, func(ctx context.Context, nc *nats.Conn) error {
			connections <- nc
			<-ctx.Done()
			return nil
		})
	})
	defer holding.Wait()
	defer stop()
	nc := <-connections
	check := func(do func() error, want ...string) {
		t.Helper()
		mu.Lock()
		heard = nil
		mu.Unlock()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if err := FlushNATS(t.Context(), nc, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(heard) != fmt.Sprint(want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
	}
	subscribe := func(subject string) func() error {
		return func() error { _, err := Subscribe(nc, subject, func(*nats.Msg) {}); return err }
	}
	for range 3 {
		check(subscribe("no.more"), "no.more false")
		check(func() error { return nc.Publish(`no."word"`, nil) }, `no."word" true`)
		check(func() error { return nc.Publish("yes.a", nil) })
	}
	check(subscribe("no.news"), "no.news false")
	check(subscribe("no.strange"), "no.strange false")
	check(subscribe("yes.a"))
	check(subscribe("yes.b"))
	check(subscribe("yes.c"), " false") // more than there may be: which is not said
	if n := journal.Count("NATS denies a permission"); n != 2 {
		t.Errorf("%d permissions are said, want what is news and what is not known:\n%s", n, journal)
	}
}

// TestRunNATSReportsConnectError before the first connection, and when one is lost: nats.go itself
// says no more than that there is no server.
func TestRunNATSReportsConnectError(t *testing.T) {
	t.Parallel()
	for what, before := range map[string]bool{"never connected": false, "lost": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			why, up := make(chan string, 1000), make(chan bool, 1000)
			log, _ := testutil.NewLog()
			s := startNATS(t, nil)
			if !before {
				s.Close()
			}
			runNATS(t, s.URL(), env(), log, NATSHooks{ConnectError: func(err error) { why <- err.Error() }, StatusChanged: func(is bool) { up <- is }})
			if before {
				<-up
				s.Close()
			}
			if got := <-why; !strings.Contains(got, "connection refused") {
				t.Errorf("why is %q", got)
			}
		})
	}
}
