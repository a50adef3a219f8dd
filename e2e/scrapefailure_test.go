package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// failedScrapes is the series that counts failed scrapes of one cause.
func failedScrapes(why stats.ScrapeFailure) string {
	return fmt.Sprintf(`dynamo_metrics_worker_scrape_errors_total{reason=%q}`, why)
}

// TestScrapeTimeoutIsReportedAsAProblem checks workers whose metrics take longer than the
// timeout, or never end. The problem ends with a longer timeout, or with a faster worker.
func TestScrapeTimeoutIsReportedAsAProblem(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newWorkerMetrics(t)
	p.set(1, vllmMetrics(1, 1, 0, 0.5, 0, 0))
	p.set(2, func(w http.ResponseWriter, r *http.Request) { // longer than the default timeout
		select {
		case <-time.After(3 * time.Second):
			vllmMetrics(2, 7, 0, 0.5, 0, 0)(w, r)
		case <-r.Context().Done():
		}
	})
	p.set(3, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for id := range uint64(3) {
		s.put(registration(1 + id)...)
	}
	flags := []string{"--nats-server", "none", "--scrape-interval", "1", "--worker-metrics-url", p.template()}
	const id = "unread:backend/generate"
	running := func(id uint64) string { return workerSeries("llm_requests_active_slots", "generate", id) }

	m := s.metrics(flags...)
	m.waitForProblem(id, "The metrics of 2 workers of backend/generate cannot be read", "backend/generate: timed out (limit 2s): 2 and 3.", "raise --scrape-timeout", "[2 3]")
	m.waitFor(func(got samples) error {
		if n, _ := strconv.Atoi(got[failedScrapes(stats.ScrapeTimedOut)]); n < 6 {
			return fmt.Errorf("%d scrapes took too long, want three of each", n)
		}
		return got.match(samples{running(1): "1", running(2): "", running(3): "", failedScrapes(stats.ScrapeTLSFailed): "0"})
	})
	p.set(3, vllmMetrics(3, 9, 0, 0.5, 0, 0))
	m.waitForProblem(id, "The metrics of 1 worker of backend/generate cannot be read", ": 2.", "[2]")
	m.waitForSamples(samples{running(1): "1", running(3): "9"})
	s.remove(registration(2)...)
	m.waitForNoProblem(id)
	m.Terminate()

	s.put(registration(2)...)
	m = s.metrics(append(flags, "--scrape-timeout", "60")...) // a busy machine may be slow as well
	m.waitForSamples(samples{running(1): "1", running(2): "7", running(3): "9", failedScrapes(stats.ScrapeTimedOut): "0"})
	m.waitForNoProblem(id)
}

// TestScrapeOfWorkersOverTLS scrapes servers with a private certificate authority that
// require client certificates.
func TestScrapeOfWorkersOverTLS(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	a := testutil.NewAuthorityWithCertificates(t)
	pair, err := tls.LoadX509KeyPair(a.File("server.crt"), a.File("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(readFile(t, a.File("ca.crt")))
	server := httptest.NewUnstartedServer(vllmMetrics(1, 8, 3, 0.25, 0, 0))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.put(registration(1)...)
	flags := []string{"--nats-server", "none", "--scrape-interval", "1", "--scrape-timeout", "60", "--worker-metrics-url", server.URL + "/{worker_id}/metrics"}
	const id = "unread:backend/generate"
	running := workerSeries("llm_requests_active_slots", "generate", 1)

	ca := []string{"--worker-tls-ca", a.File("ca.crt")}
	whole := append(ca, "--worker-tls-cert", a.File("client.crt"), "--worker-tls-key", a.File("client.key"))
	for line, files := range map[string][]string{"(--worker-tls-ca names": nil, "(--worker-tls-cert and --worker-tls-key identify": ca} {
		m := serve(t, append(s.env(), "DYN_LOG=info,metrics=debug"), append(flags, files...)...)
		m.waitForProblem(id, "backend/generate: TLS failed: 1.", "--worker-tls-ca must", "--worker-tls-cert and --worker-tls-key", "[1]")
		m.waitFor(func(got samples) error {
			if n, _ := strconv.Atoi(got[failedScrapes(stats.ScrapeTLSFailed)]); n < 3 {
				return fmt.Errorf("%d scrapes failed for TLS, want 3", n)
			}
			return got.match(samples{running: "", failedScrapes(stats.ScrapeTimedOut): "0"})
		})
		m.WaitForLine(line)
		m.Terminate()
	}
	m := s.metrics(append(flags, whole...)...)
	m.waitForSamples(samples{running: "8", workerSeries("llm_requests_waiting", "generate", 1): "3", failedScrapes(stats.ScrapeTLSFailed): "0"})
	m.waitForNoProblem(id)
	m.Terminate()

	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--worker-tls-ca " + a.File("nowhere"), 2, "--worker-tls-ca: open " + a.File("nowhere")},
		{"--worker-tls-ca " + a.File("ca.key"), 2, "--worker-tls-ca: " + a.File("ca.key") + " holds no certificate: want PEM"},
		{"--worker-tls-cert " + a.File("client.crt") + " --worker-tls-key " + a.File("ca.key"), 2, "--worker-tls-cert, --worker-tls-key: want a certificate in"},
		{"--worker-tls-cert " + a.File("client.crt"), 2, `--worker-tls-cert "` + a.File("client.crt") + `": needs --worker-tls-key`},
		{"--worker-tls-ca " + a.File("ca.crt") + " --scrape-workers off", 2, "--worker-tls-ca: needs --scrape-workers"},
	} {
		code, last := runToFailure(t, "metrics", s.env(), append(flags, append(strings.Fields(c.args), "--metrics-port", "0")...)...)
		if code != c.code || !strings.Contains(last, c.want) {
			t.Errorf("%s: exit code %d and %q, want %d and %q", c.args, code, last, c.code, c.want)
		}
	}
}
