package connect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

func startNATS(t *testing.T, tune func(*server.Options)) *devstack.NATSServer {
	t.Helper()
	s, err := devstack.NATS(devstack.NATSConfig{Dir: t.TempDir(), Tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// checkNATS connects, and returns the text of the error, or nothing.
func checkNATS(t *testing.T, servers string, getenv func(string) string) string {
	t.Helper()
	log, journal := testutil.NewLog()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	nc, err := DialNATS(ctx, servers, getenv, log, nil)
	if err != nil {
		return err.Error()
	}
	if nc == nil {
		t.Fatalf("neither connected nor failed in 10 s: %s", journal)
	}
	defer nc.Close()
	if err := nc.FlushTimeout(5 * time.Second); err != nil {
		t.Error(err)
	}
	return ""
}

func checkRefused(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range append(want, "Authorization Violation") {
		if !strings.Contains(got, w) {
			t.Errorf("got %q, want %q in it", got, w)
		}
	}
	if strings.Contains(got, "secret") || strings.Contains(got, "\n") {
		t.Errorf("got %q, want one line without secrets", got)
	}
}

func TestNATSUserAndPassword(t *testing.T) {
	s := startNATS(t, func(o *server.Options) { o.Username, o.Password = "alice", "secret" })
	if got := checkNATS(t, s.URL(), env("NATS_AUTH_USERNAME", "alice", "NATS_AUTH_PASSWORD", "secret")); got != "" {
		t.Error(got)
	}
	checkRefused(t, checkNATS(t, s.URL(), env("NATS_AUTH_USERNAME", "alice", "NATS_AUTH_PASSWORD", "secret2")),
		s.URL(), "NATS_AUTH_USERNAME", "NATS_AUTH_PASSWORD")
	checkRefused(t, checkNATS(t, s.URL(), env()), "default user")

	in := strings.Replace(s.URL(), "nats://", "nats://alice:secret@", 1)
	if got := checkNATS(t, in, env("NATS_AUTH_USERNAME", "bob", "NATS_AUTH_PASSWORD", "secret")); got != "" {
		t.Error("the URL must take precedence over the environment:", got)
	}
	checkRefused(t, checkNATS(t, strings.Replace(in, "secret", "secret2", 1), env()), "--nats-server")
}

func TestNATSDefaultUser(t *testing.T) {
	s := startNATS(t, func(o *server.Options) { o.Username, o.Password = "user", "user" })
	if got := checkNATS(t, s.URL(), env()); got != "" {
		t.Error(got)
	}
}

func TestNATSToken(t *testing.T) {
	s := startNATS(t, func(o *server.Options) { o.Authorization = "secret" })
	if got := checkNATS(t, s.URL(), env("NATS_AUTH_TOKEN", "secret")); got != "" {
		t.Error(got)
	}
	checkRefused(t, checkNATS(t, s.URL(), env("NATS_AUTH_TOKEN", "secret2")), "NATS_AUTH_TOKEN")
}

func TestNATSNkey(t *testing.T) {
	key, _ := nkeys.CreateUser()
	public, _ := key.PublicKey()
	seed, _ := key.Seed()
	s := startNATS(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
	if got := checkNATS(t, s.URL(), env("NATS_AUTH_NKEY", string(seed)+"\n")); got != "" {
		t.Error(got)
	}
	other, _ := nkeys.CreateUser()
	seed, _ = other.Seed()
	checkRefused(t, checkNATS(t, s.URL(), env("NATS_AUTH_NKEY", string(seed))), "NATS_AUTH_NKEY")
	if got := checkNATS(t, s.URL(), env("NATS_AUTH_NKEY", "secret")); !strings.HasPrefix(got, "NATS_AUTH_NKEY: ") || strings.Contains(got, "secret") {
		t.Error(got)
	}
}

func TestNATSCredentialsFile(t *testing.T) {
	operator, _ := nkeys.CreateOperator()
	trusted, _ := operator.PublicKey()
	account, _ := nkeys.CreateAccount()
	accountID, _ := account.PublicKey()
	accountJWT, _ := jwt.NewAccountClaims(accountID).Encode(operator)
	resolver := &server.MemAccResolver{}
	resolver.Store(accountID, accountJWT)
	s := startNATS(t, func(o *server.Options) {
		o.TrustedKeys, o.AccountResolver = []string{trusted}, resolver
		o.JetStream = false // it would need an account of its own
	})

	good := writeCreds(t, account)
	if got := checkNATS(t, s.URL(), env("NATS_AUTH_CREDENTIALS_FILE", good)); got != "" {
		t.Error(got)
	}
	other, _ := nkeys.CreateAccount()
	checkRefused(t, checkNATS(t, s.URL(), env("NATS_AUTH_CREDENTIALS_FILE", writeCreds(t, other))), "NATS_AUTH_CREDENTIALS_FILE")

	for _, file := range []string{good + "-missing", os.DevNull} {
		if got := checkNATS(t, s.URL(), env("NATS_AUTH_CREDENTIALS_FILE", file)); !strings.HasPrefix(got, "NATS_AUTH_CREDENTIALS_FILE: ") || !strings.Contains(got, file) {
			t.Errorf("%s: got %q", file, got)
		}
	}
}

// writeCreds writes a credentials file for a new user of the account.
func writeCreds(t *testing.T, account nkeys.KeyPair) string {
	t.Helper()
	user, _ := nkeys.CreateUser()
	id, _ := user.PublicKey()
	seed, _ := user.Seed()
	claims, err := jwt.NewUserClaims(id).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(claims, seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(file, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestNATSCredentialsNeedBothVariables(t *testing.T) {
	want := "NATS_AUTH_USERNAME is set, but not NATS_AUTH_PASSWORD: want both or neither"
	if got := checkNATS(t, "nats://127.0.0.1:1", env("NATS_AUTH_USERNAME", "alice")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNATSTriesAllServers(t *testing.T) {
	s := startNATS(t, nil)
	if got := checkNATS(t, "nats://127.0.0.1:1,"+s.URL(), env()); got != "" {
		t.Error(got)
	}
}

func TestNATSStopsWithContext(t *testing.T) {
	log, _ := testutil.NewLog()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if nc, err := DialNATS(ctx, "nats://127.0.0.1:1", env(), log, nil); nc != nil || err != nil {
		t.Errorf("got %v, %v; want neither", nc, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	nc, err := DialNATS(ctx, "nats://user:secret@127.0.0.1:1", env(), log, nil)
	if want := "connect to NATS at nats://127.0.0.1:1: "; nc != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, %v; want an error that begins with %q", nc, err, want)
	}
}

func TestNATSLogsEachChangeOnce(t *testing.T) {
	s := startNATS(t, nil)
	config, url := s.Config(), s.URL()
	s.Close()

	log, journal := testutil.NewLog()
	var changes statusLog
	connected := make(chan *nats.Conn, 1)
	go func() {
		nc, err := DialNATS(t.Context(), url, env(), log, changes.add)
		if err != nil {
			t.Error(err)
		}
		connected <- nc
	}()
	testutil.Until(t, journal.HasCount("NATS is not connected; retrying\" server="+url+" error=\"dial tcp ", 1))
	testutil.Until(t, journal.HasCount("connection refused", 1))
	s = restart(t, config)
	nc := <-connected
	defer nc.Close()
	testutil.Until(t, journal.HasCount("Connected to NATS", 1))

	s.Close()
	testutil.Until(t, journal.HasCount("Lost the connection to NATS", 1))
	if err := nc.Publish("x", nil); err == nil {
		t.Error("publishing while disconnected succeeded")
	}
	testutil.Until(t, journal.HasCount(unreachableLine(url), 1))
	reconnects := nc.Stats().Reconnects
	s = restart(t, config)
	testutil.Until(t, journal.HasCount("Connected to NATS", 2))
	if got := nc.Stats().Reconnects - reconnects; got != 1 {
		t.Errorf("got %d reconnections, want 1", got)
	}
	s.Close()
	testutil.Until(t, journal.HasCount("Lost the connection to NATS", 2))
	testutil.Until(t, journal.HasCount(unreachableLine(url), 2))
	for line, times := range map[string]int{"NATS is not connected": 1, "Connected to NATS": 2, "Lost the connection to NATS": 2, unreachableLine(url): 2} {
		if n := journal.Count(line); n != times {
			t.Errorf("%q is logged %d times, want %d:\n%s", line, n, times, journal)
		}
	}
	if got := changes.String(); got != "[true false true false]" {
		t.Errorf("the status changes are %s", got)
	}
}

func TestNATSRetriesAuthErrorsAfterSuccess(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	config := s.Config()
	log, journal := testutil.NewLog()
	nc, err := DialNATS(t.Context(), s.URL(), env(), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s.Close()

	locked := config
	locked.Tune = func(o *server.Options) { o.Username, o.Password = "alice", "secret" }
	s = restart(t, locked)
	testutil.Until(t, journal.HasCount("uthorization", 1))
	// By default, nats.go gives up after the second authorization error.
	testutil.Until(t, func() error {
		if n := s.Varz().TotalConnections; n < 3 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	if n := journal.Count("uthorization"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, journal)
	}
	s.Close()
	restart(t, config)
	testutil.Until(t, func() error {
		if !nc.IsConnected() {
			return fmt.Errorf("not connected: %s", journal)
		}
		return nil
	})
}

// unreachableLine returns the beginning of the log line that says why NATS cannot be reached.
func unreachableLine(url string) string {
	return "NATS cannot be reached; retrying\" server=" + url + " error=\"dial tcp " + strings.TrimPrefix(url, "nats://") + ": connect: connection refused\""
}

// TestNATSLogsReasonForEachServer tries lists of servers that fail for different reasons.
func TestNATSLogsReasonForEachServer(t *testing.T) {
	t.Parallel()
	a := testutil.NewAuthorityWithCertificates(t)
	gone, secure := startNATS(t, nil), startNATS(t, requireTLS(t, a, false))
	down := gone.URL()
	gone.Close()
	for servers, want := range map[string][]string{
		down:                         {"connect: connection refused"},
		"nats://x.invalid:4222":      {"lookup x.invalid"},
		secure.URL():                 {"unknown authority", "hint="},
		"nats://x.invalid," + down:   {"lookup x.invalid", "connect: connection refused"},
		down + ",nats://127.0.0.1:1": {strings.TrimPrefix(down, "nats://") + ": connect: connection refused", "127.0.0.1:1: connect: connection refused"},
	} {
		log, journal := testutil.NewLog()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); DialNATS(ctx, servers, env(), log, nil) }()
		testutil.Until(t, journal.HasCount("NATS is not connected; retrying", 1))
		cancel()
		<-done
		for _, text := range append(want, "server="+servers) {
			if journal.Count(text) != 1 {
				t.Errorf("%s: want %q once:\n%s", servers, text, journal)
			}
		}
	}
}

func restart(t *testing.T, config devstack.NATSConfig) *devstack.NATSServer {
	t.Helper()
	s := devstacktest.StartWithRetry(t, func() (*devstack.NATSServer, error) { return devstack.NATS(config) })
	t.Cleanup(s.Close)
	return s
}

// statusLog records the changes of the status.
type statusLog struct {
	mu  sync.Mutex
	all []bool
}

func (c *statusLog) add(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, up)
}

func (c *statusLog) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.all)
}
