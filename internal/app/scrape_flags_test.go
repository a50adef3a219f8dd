package app

import (
	"crypto/x509"
	"io"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// parseArgs parses flags and returns the error as text.
func parseArgs(args ...string) (o Options, errText string) {
	o, _, err := parse(args, func(string) string { return "" }, io.Discard)
	if err != nil {
		errText = err.Error()
	}
	return o, errText
}

func TestScrapeTimeoutIsBounded(t *testing.T) {
	for given, want := range map[string]time.Duration{
		"": 2 * time.Second, "0.1": 100 * time.Millisecond, "60": time.Minute, "30s": 30 * time.Second, // may be longer than the interval
	} {
		args := []string{"--scrape-timeout", given}
		if given == "" {
			args = nil
		}
		if o, errText := parseArgs(args...); errText != "" || o.Scrape.Timeout != want || o.scraper(nil).Timeout != want {
			t.Errorf("%q: got %s, %s, want %s", given, o.Scrape.Timeout, errText, want)
		}
	}
	for _, given := range []string{"0", "0.099", "60.1", "2m", "x"} {
		want := `--scrape-timeout "` + given + `": want seconds (2, 0.1) or a duration (100ms), from 100ms to 1m0s`
		if _, errText := parseArgs("--scrape-timeout", given); errText != want {
			t.Errorf("got %q, want %q", errText, want)
		}
	}
}

func TestScrapeTLSFilesFitOtherFlags(t *testing.T) {
	a := testutil.NewAuthority(t)
	a.Issue("client", new(x509.Certificate))
	t.Chdir(a.Dir)
	const https, http = "--worker-metrics-url=https://{host}:9090", "--worker-metrics-url=prefill=http://{host}:9090"
	for args, want := range map[string]string{
		"--worker-tls-ca a":                            "--worker-tls-ca: needs --worker-metrics-url with https://",
		"--worker-tls-ca a " + http:                    "--worker-tls-ca: needs --worker-metrics-url with https://",
		"--worker-tls-cert c --worker-tls-key k":       "--worker-tls-cert: needs --worker-metrics-url with https://",
		"--worker-tls-cert c " + https:                 `--worker-tls-cert "c": needs --worker-tls-key, the file with its key`,
		"--worker-tls-key k " + https:                  `--worker-tls-key "k": needs --worker-tls-cert, the file with its certificate`,
		"--worker-tls-ca a --scrape-workers off":       "--worker-tls-ca: needs --scrape-workers, which is off",
		"--worker-tls-ca ca.crt " + https + " " + http: "",
		"--worker-tls-ca ca.key " + https:              "--worker-tls-ca: ca.key holds no certificate: want PEM",
		"--worker-tls-ca nowhere " + https:             "--worker-tls-ca: open nowhere",
		https:                                          "",
		"":                                             "",
		"--worker-tls-cert client.crt --worker-tls-key client.key " + https: "",
		"--worker-tls-cert client.crt --worker-tls-key ca.key " + https:     "--worker-tls-cert, --worker-tls-key: want a certificate",
	} {
		_, errText := parseArgs(strings.Fields(args)...)
		if !strings.HasPrefix(errText, want) || want == "" && errText != "" {
			t.Errorf("%s: got %q, want %q", args, errText, want)
		}
	}
}
