package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
)

// The workers whose own metrics pages are read.
const (
	scrapeIncomplete = "auto" // those whose load is not whole without them
	scrapeAll        = "on"
	scrapeNone       = "off"
)

// scrapes is what the flags say of the workers' own pages.
type scrapeConfig struct {
	mode     string
	interval time.Duration
	timeout  time.Duration
	urls     collect.WorkerURLs
	tls      connect.WorkerTLS
}

func (s *scrapeConfig) addFlags(a *cli.App) {
	a.Flag("scrape-workers", "Whose own metrics pages to read: auto (of workers whose load is not whole without), on, or off.").
		Default(scrapeIncomplete).SetValue(cli.OneOf("scrape-workers", &s.mode, scrapeIncomplete, scrapeAll, scrapeNone))
	a.Flag("scrape-interval", "How often to read them, in seconds or as a duration; from 1s to 1h.").
		Default("5").SetValue(cli.Duration("scrape-interval", &s.interval, time.Second, maxInterval))
	a.Flag("scrape-timeout", "How long a page may take, in seconds or as a duration; from 100ms to 1m.").
		Default(fmt.Sprint(collect.ScrapeTimeout.Seconds())).
		SetValue(cli.Duration("scrape-timeout", &s.timeout, collect.MinScrapeTimeout, collect.MaxScrapeTimeout))
	a.Flag("worker-metrics-url", "Where a worker's page is, where the registry does not say it: [COMPONENT=]URL, with {host}, {namespace}, {component}, {endpoint}, {worker_id} and {worker_id_hex}; may be repeated.").
		PlaceHolder("TEMPLATE").SetValue(&urlTemplateFlag{urls: &s.urls})
	a.Flag("worker-tls-ca", "File of the authorities that sign the certificates of workers' pages (https:// in --worker-metrics-url); the system's without it.").
		PlaceHolder("FILE").StringVar(&s.tls.CA)
	a.Flag("worker-tls-cert", "File of the certificate that workers know us by; needs --worker-tls-key, too.").
		PlaceHolder("FILE").StringVar(&s.tls.Cert)
	a.Flag("worker-tls-key", "File of that certificate's key.").
		PlaceHolder("FILE").StringVar(&s.tls.Key)
}

// check refuses files for TLS that do not go together, or cannot be used.
func (s *scrapeConfig) validate() error {
	err := s.tls.Check()
	if err == nil {
		_, err = s.tls.Config()
	}
	return err
}

// trust is what TLS with the workers needs, as the files are now; nil if there are none.
func (s *scrapeConfig) tlsConfig() func() (*tls.Config, error) {
	if s.tls.FirstFlag() == "" {
		return nil
	}
	return s.tls.Config
}

// scraper reads the pages.
func (c config) scraper(f *fleet.Fleet, log *slog.Logger) *collect.Scraper {
	return &collect.Scraper{
		Fleet: f, Namespaces: c.namespaces, Interval: c.scrape.interval, Timeout: c.scrape.timeout, AllWorkers: c.scrape.mode == scrapeAll,
		URL: c.workerMetricsURL, TLS: c.scrape.tlsConfig(), Descriptors: maxOpenFiles(), Log: log,
	}
}

// pageOf is where a worker's page is; empty if nowhere.
func (c config) workerMetricsURL(p fleet.ScrapeTarget) string {
	return c.scrape.urls.URL(c.namespaces.OfEndpoint(p.Endpoint), p)
}

// urlTemplates is the value of --worker-metrics-url.
type urlTemplateFlag struct{ urls *collect.WorkerURLs }

func (u *urlTemplateFlag) Set(s string) error {
	if err := u.urls.Add(s); err != nil {
		return fmt.Errorf("--worker-metrics-url %q: %w; want [component=]http(s)://{host}:port/path", cli.Redact(s), err)
	}
	return nil
}

func (u *urlTemplateFlag) String() string { return "" }

// IsCumulative lets kingpin take the flag more than once.
func (u *urlTemplateFlag) IsCumulative() bool { return true }
