package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// requireTLS makes a NATS server require TLS, and with verify also a client certificate from a.
func requireTLS(t *testing.T, a *testutil.Authority, verify bool) func(*server.Options) {
	t.Helper()
	config, err := server.GenTLSConfig(&server.TLSConfigOpts{
		CertFile: a.File("server.crt"), KeyFile: a.File("server.key"), CaFile: a.File("ca.crt"), Verify: verify,
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *server.Options) { o.TLS, o.TLSVerify, o.TLSConfig, o.TLSTimeout = true, verify, config, 10 }
}

func withScheme(scheme string, s *devstack.NATSServer) string {
	return strings.Replace(s.URL(), "nats", scheme, 1)
}

// connectTLS connects in the background. It returns a channel for the connection, and the log.
func connectTLS(t *testing.T, servers string, files NATSTLS) (<-chan *nats.Conn, *testutil.Log) {
	t.Helper()
	opts, err := files.Options()
	if err != nil {
		t.Fatal(err)
	}
	log, journal := testutil.NewLog()
	ctx, cancel := context.WithCancel(t.Context())
	connected, ended := make(chan *nats.Conn, 1), make(chan struct{})
	go func() {
		defer close(ended)
		nc, err := DialNATS(ctx, servers, env(), log, nil, opts...)
		if err != nil {
			t.Error(err)
		}
		connected <- nc
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return connected, journal
}

func TestNATSTLSCertificates(t *testing.T) {
	a := testutil.NewAuthorityWithCertificates(t)
	mutual := NATSTLS{CA: a.File("ca.crt"), Cert: a.File("client.crt"), Key: a.File("client.key")}
	for name, c := range map[string]struct {
		tune  func(*server.Options)
		files NATSTLS
	}{
		"server": {requireTLS(t, a, false), NATSTLS{CA: a.File("ca.crt")}},
		"mutual": {requireTLS(t, a, true), mutual},
		"mapped": {func(o *server.Options) {
			requireTLS(t, a, true)(o)
			o.TLSMap, o.Users = true, []*server.User{{Username: "CN=client"}}
		}, mutual},
	} {
		s := startNATS(t, c.tune)
		for _, scheme := range []string{"nats", "tls"} {
			connected, journal := connectTLS(t, withScheme(scheme, s), c.files)
			nc := <-connected
			if nc == nil {
				t.Fatalf("%s, %s: not connected:\n%s", name, scheme, journal)
			}
			if _, err := nc.TLSConnectionState(); err != nil {
				t.Errorf("%s, %s: %v", name, scheme, err)
			}
			nc.Close()
		}
	}
}

func TestNATSTLSErrorLoggedOnce(t *testing.T) {
	t.Parallel()
	a, other := testutil.NewAuthorityWithCertificates(t), testutil.NewAuthorityWithCertificates(t)
	locked, plain := startNATS(t, requireTLS(t, a, true)), startNATS(t, nil)
	ca := a.File("ca.crt")
	for name, c := range map[string]struct {
		servers string
		files   NATSTLS
		want    []string
	}{
		"another authority":               {withScheme("tls", locked), NATSTLS{CA: other.File("ca.crt")}, []string{"unknown authority", flagCA}},
		"the system's authorities":        {withScheme("tls", locked), NATSTLS{}, []string{"unknown authority", flagCA}},
		"TLS required by the server":      {withScheme("nats", locked), NATSTLS{}, []string{"unknown authority", flagCA}},
		"no certificate":                  {withScheme("tls", locked), NATSTLS{CA: ca}, []string{flagCert, flagKey}},
		"a client of another authority":   {withScheme("tls", locked), NATSTLS{ca, other.File("client.crt"), other.File("client.key")}, []string{flagCert, flagKey}},
		"a server without TLS":            {withScheme("nats", plain), NATSTLS{CA: ca}, []string{nats.ErrSecureConnWanted.Error(), flagCA}},
		"tls:// and a server without TLS": {withScheme("tls", plain), NATSTLS{}, []string{nats.ErrSecureConnWanted.Error(), "tls://"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, journal := connectTLS(t, c.servers, c.files)
			testutil.Until(t, journal.HasCount("NATS is not connected; retrying", 1))
			for _, want := range c.want {
				if journal.Count(want) == 0 {
					t.Errorf("want %q in\n%s", want, journal)
				}
			}
			if journal.Count("\n") != 1 {
				t.Errorf("want one line:\n%s", journal)
			}
		})
	}
}

// TestNATSTLSReloadsCertificates replaces the files while the program runs.
func TestNATSTLSReloadsCertificates(t *testing.T) {
	t.Parallel()
	old, renewed := testutil.NewAuthorityWithCertificates(t), testutil.NewAuthorityWithCertificates(t)
	s := startNATS(t, requireTLS(t, old, true))
	config := s.Config()
	connected, journal := connectTLS(t, withScheme("tls", s), NATSTLS{old.File("ca.crt"), old.File("client.crt"), old.File("client.key")})
	nc := <-connected
	if nc == nil {
		t.Fatalf("not connected:\n%s", journal)
	}
	defer nc.Close()
	s.Close()
	for _, name := range []string{"ca.crt", "client.crt", "client.key"} {
		b, err := os.ReadFile(renewed.File(name))
		if err == nil {
			err = os.WriteFile(old.File(name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config.Tune = requireTLS(t, renewed, true)
	restart(t, config)
	testutil.Until(t, func() error {
		if !nc.IsConnected() {
			return fmt.Errorf("not connected:\n%s", journal)
		}
		return nil
	})
}

// TestNATSTLSLogsReconnectErrors first has no server, and then one with which TLS fails.
func TestNATSTLSLogsReconnectErrors(t *testing.T) {
	t.Parallel()
	a, other := testutil.NewAuthorityWithCertificates(t), testutil.NewAuthorityWithCertificates(t)
	s := startNATS(t, requireTLS(t, a, false))
	config := s.Config()
	connected, journal := connectTLS(t, withScheme("tls", s), NATSTLS{CA: a.File("ca.crt")})
	nc := <-connected
	if nc == nil {
		t.Fatalf("not connected:\n%s", journal)
	}
	defer nc.Close()
	testutil.Until(t, journal.HasCount("Connected to NATS", 1))
	s.Close()
	testutil.Until(t, journal.HasCount("NATS cannot be reached; retrying", 1))
	config.Tune = requireTLS(t, other, false)
	s = restart(t, config)
	testutil.Until(t, journal.HasCount("unknown authority", 1))
	testutil.Until(t, func() error {
		if n := s.Varz().TotalConnections; n < 4 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	if n := journal.Count("NATS cannot be reached; retrying"); n < 2 || n > maxLoggedReasons || journal.Count("hint=") != 1 {
		t.Errorf("%d lines have a reason, want one for each reason:\n%s", n, journal)
	}
}

func TestNATSTLSNamesUnusableFiles(t *testing.T) {
	a := testutil.NewAuthorityWithCertificates(t)
	junk, missing := a.File("junk"), a.File("missing")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := a.File("client.crt"), a.File("client.key")
	for _, c := range []struct {
		files NATSTLS
		want  string
	}{
		{NATSTLS{CA: missing}, flagCA + ": open " + missing + ": no such file or directory"},
		{NATSTLS{CA: a.Dir}, flagCA + ": read " + a.Dir + ": is a directory"},
		{NATSTLS{CA: junk}, flagCA + ": " + junk + " holds no certificate: want PEM"},
		{NATSTLS{CA: key}, flagCA + ": " + key + " holds no certificate: want PEM"},
		{NATSTLS{Cert: missing, Key: key}, flagCert + ", " + flagKey + ": open " + missing + ": no such file or directory"},
		{NATSTLS{Cert: junk, Key: key}, flagCert + ", " + flagKey + ": want a certificate in " + junk + " and its key in " + key + ", both PEM: "},
		{NATSTLS{Cert: cert, Key: a.File("ca.key")}, flagCert + ", " + flagKey + ": want a certificate in " + cert + " and its key in " + a.File("ca.key") + ", both PEM: "},
	} {
		_, err := c.files.Options()
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: got %v, want %s", c.files, err, c.want)
		}
	}
}

func TestNATSTLSCheckFlags(t *testing.T) {
	for _, c := range []struct {
		files   NATSTLS
		servers string
		want    string
	}{
		{NATSTLS{Cert: "c"}, "h", `--nats-tls-cert "c": needs --nats-tls-key`},
		{NATSTLS{CA: "a", Key: "k"}, "h", `--nats-tls-key "k": needs --nats-tls-cert`},
		{NATSTLS{Cert: "c", Key: "k"}, "ws://h", "--nats-tls-cert: needs servers with TLS"},
		{NATSTLS{}, "", ""},
		{NATSTLS{}, "ws://h", ""},
		{NATSTLS{CA: "a"}, "wss://h", ""},
		{NATSTLS{"a", "c", "k"}, "tls://h,nats://i", ""},
	} {
		got := ""
		if err := c.files.Check(c.servers); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%+v for %q: got %q, want %q", c.files, c.servers, got, c.want)
		}
	}
}

func TestNATSHidesTokenInURL(t *testing.T) {
	s := startNATS(t, func(o *server.Options) { o.Authorization = "secret" })
	log, journal := testutil.NewLog()
	nc, err := DialNATS(t.Context(), strings.Replace(s.URL(), "nats://", "nats://secret@", 1), env(), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	testutil.Until(t, journal.HasCount("server="+s.URL(), 1))
	if journal.Count("secret") != 0 {
		t.Errorf("the log shows the token:\n%s", journal)
	}
}

func TestNATSLogsDeniedPermissionOnce(t *testing.T) {
	s := startNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "user", Password: "user", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Deny: []string{"a", "b"}},
			Subscribe: &server.SubjectPermission{Deny: []string{"c"}},
		}}}
	})
	config := s.Config()
	log, journal := testutil.NewLog()
	nc, err := DialNATS(t.Context(), s.URL(), env(), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Subscribe("c", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	use := func() {
		t.Helper()
		for range 5 {
			if err := errors.Join(nc.Publish("a", nil), nc.Publish("b", nil), nc.Flush()); err != nil {
				t.Fatal(err)
			}
		}
	}
	use()
	s.Close()
	restart(t, config)
	testutil.Until(t, journal.HasCount("Connected to NATS", 2))
	use()
	// nats.go reports the errors in order.
	if err := errors.Join(nc.Publish("a", nil), nc.Flush()); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"a", "b", "c"} {
		testutil.Until(t, journal.HasCount(fmt.Sprintf(`\"%s\`, subject), 1))
	}
	if n := journal.Count("NATS denies a permission"); n != 3 || journal.Count("NATS reports a fault") != 0 {
		t.Errorf("want one line for each of three permissions:\n%s", journal)
	}
	if !nc.IsConnected() {
		t.Error("the connection is lost")
	}
}

func TestNATSBoundsLoggedDenials(t *testing.T) {
	log, journal := testutil.NewLog()
	r := &connReporter{log: log}
	for i := range 100 {
		r.asyncError(nil, nil, fmt.Errorf("%w: %d", nats.ErrPermissionViolation, i))
	}
	if got, want := journal.Count("\n"), 32+1; got != want {
		t.Errorf("got %d lines, want %d", got, want)
	}
}

func TestNATSInboxPrefix(t *testing.T) {
	s := startNATS(t, nil)
	log, _ := testutil.NewLog()
	nc, err := DialNATS(t.Context(), s.URL(), env(), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got := nc.NewInbox(); !strings.HasPrefix(got, inboxPrefix+".") {
		t.Errorf("got %s, want it below %s", got, inboxPrefix)
	}
}

func TestNATSTLSFromEnv(t *testing.T) {
	got := NATSTLSFromEnv(env("NATS_TLS_CA_CERT_PATH", "a", "NATS_TLS_CLIENT_CERT_PATH", "c", "NATS_TLS_CLIENT_KEY_PATH", "k"))
	if want := (NATSTLS{CA: "a", Cert: "c", Key: "k"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestNATSTLSInsecureIsIgnored checks that the variable is ignored, and that the log says so
// once.
func TestNATSTLSInsecureIsIgnored(t *testing.T) {
	a := testutil.NewAuthorityWithCertificates(t)
	server := withScheme("tls", startNATS(t, requireTLS(t, a, false)))
	for value, want := range map[string]int{"1": 1, "true": 1, "ON": 1, "yes": 1, "0": 0, "false": 0, "": 0, "2": 0} {
		log, out := testutil.NewLog()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := DialNATS(ctx, server, env("NATS_TLS_INSECURE", value), log, nil)
			ended <- err
		}()
		testutil.Until(t, out.HasCount("unknown authority", 1))
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := strings.Count(out.String(), "NATS_TLS_INSECURE is ignored: the certificates of NATS servers are always verified (--nats-tls-ca names"); got != want {
			t.Errorf("%q: logged %d times, want %d:\n%s", value, got, want, out)
		}
	}
}
