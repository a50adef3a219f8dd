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

// fakeNATS is a NATS server with as much of the protocol as a client needs to connect, and which
// sends what a test wants.
type fakeNATS struct {
	t        *testing.T
	listener net.Listener
	conns    sync.WaitGroup

	mu       sync.Mutex
	refusal  string   // sent to each client that connects; empty: clients are accepted
	open     net.Conn // the last accepted connection
	accepted int      // how many connections were accepted
	subjects []string // subscribed to on the last connection
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

// send sends a line on the open connection; an empty line closes it.
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

// waitConnections waits for a number of connections, and for the subscriptions on the last one.
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

// runNATS keeps a connection, subscribed to x, until the test ends.
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

// TestRunNATSReplacesClosedConnection sends errors that nats.go does not know, after which it
// closes the connection for good.
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
		t.Errorf("the status changes are %s", got)
	}
	if n := journal.Count("NATS has closed the connection; retrying"); n != 2 || journal.Count("The Moon Is Full") != 2 {
		t.Errorf("want two lines with the reason:\n%s", journal)
	}
	if n := failed.Load(); n != 2 {
		t.Errorf("%d failures, want 2", n)
	}
	f.send("-ERR 'Stale Connection'") // an error that nats.go knows
	f.waitConnections(4, "x")
}

// TestRunNATSRetriesAuthErrors covers both a lost connection and a closed one.
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
			all := []string{"Authorization Violation", "Mars Is Full"}
			if name == "lost" {
				all = append(all, "User Authentication Expired", "User Authentication Revoked", "Account Authentication Expired", "Maximum Connections Exceeded")
			}
			for n, refusal := range all {
				f.refuse(refusal)
				f.send(end)
				before := failed.Load()
				testutil.Until(t, func() error {
					if n := failed.Load() - before; n < 3 { // by default, nats.go gives up after two
						return fmt.Errorf("%d failures", n)
					}
					return nil
				})
				f.refuse("")
				f.waitConnections(2+n, "x")
			}
			if n := journal.Count("uthorization Violation") + journal.Count("uthorization violation"); n != 1 {
				t.Errorf("%d log lines say that the credentials are rejected, want one:\n%s", n, journal)
			}
		})
	}
	f := startFakeNATS(t) // before the first connection, the error ends RunNATS
	f.refuse("Authorization Violation")
	log, _ := testutil.NewLog()
	err := RunNATS(t.Context(), f.url(), env(), log, NATSHooks{}, func(context.Context, *nats.Conn) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "Authorization Violation") {
		t.Errorf("got %v, want that the credentials are rejected", err)
	}
}

// TestRunNATSSurvivesCredentialChange changes the password with a restart of the server, and
// then removes the user and adds it again.
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
	waitAttempts := func(s interface{ Varz() *server.Varz }) {
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
	waitAttempts(s)
	s.Close()
	s = restart(t, config)
	connected(2)
	if err := s.Reload(user("")); err != nil {
		t.Fatal(err)
	}
	waitAttempts(s)
	if err := s.Reload(user("old")); err != nil {
		t.Fatal(err)
	}
	connected(3)
}

// TestRunNATSShortLivedPauseGrows checks the pauses after connections that the server closes
// soon.
func TestRunNATSShortLivedPauseGrows(t *testing.T) {
	for in, want := range map[int]time.Duration{0: 0, 1: 500 * time.Millisecond, 4: 2 * time.Second, 10: 5 * time.Second, 1000: 5 * time.Second} {
		if got := shortLivedPause(in); got != want {
			t.Errorf("after %d: %s, want %s", in, got, want)
		}
	}
}

// TestFlushNATSWaitsForDenials checks that after FlushNATS, a subject without a denial is
// permitted.
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
	var denied []string
	onDenied := func(subject string, publishing bool) (known, isNew bool) {
		time.Sleep(time.Millisecond) // as if the processor were busy
		mu.Lock()
		defer mu.Unlock()
		denied = append(denied, fmt.Sprintf("%s %v", subject, publishing))
		return subject != "no.strange", subject == "no.news"
	}
	connections := make(chan *nats.Conn, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var holding sync.WaitGroup
	holding.Go(func() {
		RunNATS(ctx, s.URL(), env(), log, NATSHooks{Denied: onDenied}, func(ctx context.Context, nc *nats.Conn) error {
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
		denied = nil
		mu.Unlock()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if err := FlushNATS(t.Context(), nc, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(denied) != fmt.Sprint(want) {
			t.Errorf("denied: %q, want %q", denied, want)
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
	check(subscribe("yes.c"), " false") // exceeds MaxSubs; the server does not name the subject
	if n := journal.Count("NATS denies a permission"); n != 2 {
		t.Errorf("%d denials are logged, want the new one and the one without a handler:\n%s", n, journal)
	}
}

// TestRunNATSReportsConnectError covers an outage before the first connection, and one after it.
// nats.go itself reports only that no server is available.
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
				t.Errorf("the error is %q", got)
			}
		})
	}
}
