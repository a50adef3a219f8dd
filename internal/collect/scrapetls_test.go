package collect

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// tlsServer serves the metrics with a certificate of an authority. With mutual it requires
// client certificates of that authority.
func (f *metricsServer) tlsServer(a *testutil.Authority, mutual bool, version uint16) *httptest.Server {
	f.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.File("server.crt"), a.File("server.key"))
	if err != nil {
		f.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: version}
	if mutual {
		pem, err := os.ReadFile(a.File("ca.crt"))
		if err != nil {
			f.t.Fatal(err)
		}
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		s.TLS.ClientCAs.AppendCertsFromPEM(pem)
	}
	s.StartTLS()
	f.t.Cleanup(s.Close)
	return s
}

// scrapeFrom scrapes all workers from one server, with a timeout for slow machines.
func scrapeFrom(s *httptest.Server, files connect.WorkerTLS) func(*Scraper) {
	return func(scraper *Scraper) {
		scraper.Interval, scraper.Timeout, scraper.TLS = time.Second, time.Minute, files.Config
		scraper.URL = func(p fleet.ScrapeTarget) string { return s.URL + "/" + wire.HexID(p.ID) }
	}
}

// TestScraperTLSWithPrivateAuthority reads workers with the right files. With other files, the
// failure must count as a TLS failure. The two versions of TLS differ in how the worker rejects a
// client.
func TestScraperTLSWithPrivateAuthority(t *testing.T) {
	t.Parallel()
	a, other := testutil.NewAuthorityWithCertificates(t), testutil.NewAuthorityWithCertificates(t)
	ca := connect.WorkerTLS{CA: a.File("ca.crt")}
	whole := connect.WorkerTLS{CA: a.File("ca.crt"), Cert: a.File("client.crt"), Key: a.File("client.key")}
	for name, c := range map[string]struct {
		files  connect.WorkerTLS
		mutual bool
		read   bool
		logs   string
	}{
		"its authority":             {ca, false, true, ""},
		"the system's":              {connect.WorkerTLS{}, false, false, "--worker-tls-ca names the authorities"},
		"another authority":         {connect.WorkerTLS{CA: other.File("ca.crt")}, false, false, "--worker-tls-ca names the authorities"},
		"an unneeded certificate":   {whole, false, true, ""},
		"mutual":                    {whole, true, true, ""},
		"mutual, no certificate":    {ca, true, false, "--worker-tls-cert and --worker-tls-key identify this program"},
		"mutual, other certificate": {connect.WorkerTLS{CA: ca.CA, Cert: other.File("client.crt"), Key: other.File("client.key")}, true, false, "--worker-tls-cert and --worker-tls-key identify this program"},
		"mutual, no authority":      {connect.WorkerTLS{Cert: whole.Cert, Key: whole.Key}, true, false, "--worker-tls-ca names the authorities"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+", "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				f := newMetricsServer(t)
				f.register(1, blocksHandler(1))
				journal := new(testutil.Log)
				f.scrape(func(s *Scraper) {
					scrapeFrom(f.tlsServer(a, c.mutual, version), c.files)(s)
					s.Log = slog.New(slog.NewTextHandler(journal, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				if c.read {
					f.waitLoads(map[uint64]fleet.Load{1: blocksLoad(1)})
					return
				}
				testutil.Until(t, func() error {
					if got := unreadByID(f.fleet)[1]; got.Times < 2 || got.Why != stats.ScrapeTLSFailed {
						return fmt.Errorf("the worker has %v", got)
					}
					if journal.Count(c.logs) == 0 {
						return fmt.Errorf("the log does not have %q:\n%s", c.logs, journal)
					}
					return nil
				})
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.requests[1] > 0 {
					t.Error("the worker got a request")
				}
			})
		}
	}
}

// TestScraperTLSErrorsAreDistinguished sets up a server whose certificate is for another host, one
// without TLS, one that does not respond, which counts as slow, and one with TLS that gets plain
// HTTP.
func TestScraperTLSErrorsAreDistinguished(t *testing.T) {
	t.Parallel()
	a := testutil.NewAuthorityWithCertificates(t)
	f := newMetricsServer(t)
	secure := f.tlsServer(a, false, 0)
	silent := httptest.NewUnstartedServer(nil) // accepts no connection
	t.Cleanup(func() { silent.Listener.Close() })
	for id := range uint64(4) {
		f.register(1+id, blocksHandler(1))
	}
	f.scrape(func(s *Scraper) {
		scrapeFrom(secure, connect.WorkerTLS{CA: a.File("ca.crt")})(s)
		s.Timeout = 3 * time.Second // for the server that does not respond
		s.URL = func(p fleet.ScrapeTarget) string {
			return []string{
				strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), strings.Replace(f.server.URL, "http", "https", 1),
				"https://" + silent.Listener.Addr().String(), strings.Replace(secure.URL, "https", "http", 1),
			}[p.ID-1] + "/" + wire.HexID(p.ID)
		}
	})
	want := []stats.ScrapeFailure{stats.ScrapeTLSFailed, stats.ScrapeTLSFailed, stats.ScrapeTimedOut, stats.ScrapeBadStatus}
	testutil.Until(t, func() error {
		got := unreadByID(f.fleet)
		for i, why := range want {
			if failure := got[uint64(1+i)]; failure.Times < 1 || failure.Why != why {
				return fmt.Errorf("worker %d has %v, want %s", 1+i, failure, why)
			}
		}
		return nil
	})
}

// TestScraperTLSReloadsFiles renews the files. Files that cannot be used change nothing.
func TestScraperTLSReloadsFiles(t *testing.T) {
	t.Parallel()
	old, renewed := testutil.NewAuthorityWithCertificates(t), testutil.NewAuthorityWithCertificates(t)
	f := newMetricsServer(t)
	f.register(1, blocksHandler(1))
	f.register(2, blocksHandler(2))
	first, second := f.tlsServer(old, true, 0), f.tlsServer(renewed, true, 0)
	var moved atomic.Bool // the second worker is at the server that needs the renewed files
	files := connect.WorkerTLS{CA: old.File("ca.crt"), Cert: old.File("client.crt"), Key: old.File("client.key")}
	logger, journal := testutil.NewLog()
	f.scrape(func(s *Scraper) {
		scrapeFrom(first, files)(s)
		s.Log = logger
		s.URL = func(p fleet.ScrapeTarget) string {
			if p.ID == 2 && moved.Load() {
				return second.URL + "/2"
			}
			return first.URL + "/" + wire.HexID(p.ID)
		}
	})
	f.waitLoads(map[uint64]fleet.Load{1: blocksLoad(1), 2: blocksLoad(2)})
	replace := func(name string) {
		t.Helper()
		if err := os.Rename(renewed.File(name), old.File(name)); err != nil { // atomic
			t.Fatal(err)
		}
	}
	replace("client.key") // does not match the certificate yet
	testutil.Until(t, journal.HasCount("The files for TLS with the workers cannot be used as they are", 1))
	f.register(2, blocksHandler(3))
	first.CloseClientConnections() // new connections use the previous files
	f.waitLoads(map[uint64]fleet.Load{1: blocksLoad(1), 2: blocksLoad(3)})
	replace("client.crt")
	replace("ca.crt")
	f.register(2, blocksHandler(4))
	moved.Store(true)
	f.waitLoads(map[uint64]fleet.Load{2: blocksLoad(4), 1: blocksLoad(1)})
	if got := journal.Count("cannot be used"); got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, journal)
	}
}
