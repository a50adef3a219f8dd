package app

import (
	"crypto/tls"
	"fmt"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
)

// The values of --scrape-workers.
const (
	ScrapeIncomplete = "auto" // workers whose load is incomplete without their own metrics
	ScrapeAll        = "on"
	ScrapeNone       = "off"
)

// scrapeConfig holds the settings for scraping the workers' own metrics.
type ScrapeOptions struct {
	Mode     string
	Interval time.Duration
	Timeout  time.Duration
	URLs     collect.WorkerURLs
	TLS      connect.WorkerTLS
}

func (s *ScrapeOptions) addFlags(a *cli.App) {
	a.Flag("scrape-workers", "Which workers' own metrics to scrape: auto (those whose load is incomplete without), on (all), or off (none).").
		Default(ScrapeIncomplete).SetValue(cli.OneOf("scrape-workers", &s.Mode, ScrapeIncomplete, ScrapeAll, ScrapeNone))
	a.Flag("scrape-interval", "Interval between scrapes of a worker, in seconds or as a duration; from 1s to 1h.").
		Default("5").SetValue(cli.Duration("scrape-interval", &s.Interval, time.Second, maxInterval))
	a.Flag("scrape-timeout", "Timeout of a scrape, in seconds or as a duration; from 100ms to 1m.").
		Default(fmt.Sprint(collect.ScrapeTimeout.Seconds())).
		SetValue(cli.Duration("scrape-timeout", &s.Timeout, collect.MinScrapeTimeout, collect.MaxScrapeTimeout))
	a.Flag("worker-metrics-url", "URL of a worker's own metrics if the registry does not have it: [COMPONENT=]URL, with {host}, {namespace}, {component}, {endpoint}, {worker_id} and {worker_id_hex}; may be repeated.").
		PlaceHolder("TEMPLATE").SetValue(&urlTemplateFlag{urls: &s.URLs})
	a.Flag("worker-tls-ca", "CA file for the workers' certificates (https:// in --worker-metrics-url); by default the system's CAs.").
		PlaceHolder("FILE").StringVar(&s.TLS.CA)
	a.Flag("worker-tls-cert", "Client certificate file for scraping workers; --worker-tls-key has its key.").
		PlaceHolder("FILE").StringVar(&s.TLS.Cert)
	a.Flag("worker-tls-key", "Key file of that certificate.").
		PlaceHolder("FILE").StringVar(&s.TLS.Key)
}

// validate rejects TLS files that do not fit together or cannot be used.
func (s *ScrapeOptions) validate() error {
	err := s.TLS.Check()
	if err == nil {
		_, err = s.TLS.Config()
	}
	return err
}

// tlsConfig returns a function that reads the TLS files as they are at that time, or nil if there
// are none.
func (s *ScrapeOptions) tlsConfig() func() (*tls.Config, error) {
	if s.TLS.FirstFlag() == "" {
		return nil
	}
	return s.TLS.Config
}

// scraper returns the scraper of the workers' own metrics.
func (o Options) scraper(f *fleet.Fleet) *collect.Scraper {
	return &collect.Scraper{
		Fleet: f, Namespaces: o.Namespaces, Interval: o.Scrape.Interval, Timeout: o.Scrape.Timeout, AllWorkers: o.Scrape.Mode == ScrapeAll,
		URL: o.workerMetricsURL, TLS: o.Scrape.tlsConfig(), Descriptors: maxOpenFiles(), Log: o.Log,
	}
}

// workerMetricsURL returns the URL of a worker's own metrics, or "" if it is not known.
func (o Options) workerMetricsURL(p fleet.ScrapeTarget) string {
	return o.Scrape.URLs.URL(o.Namespaces.OfEndpoint(p.Endpoint), p)
}

// urlTemplateFlag is the value of --worker-metrics-url.
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
