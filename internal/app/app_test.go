package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/testutil"
)

// filesOptions are those of a program that watches a directory, without NATS, on a free port.
func filesOptions(t *testing.T) (Options, *testutil.Log) {
	log, logs := testutil.NewLog()
	return Options{
		Namespaces: "dynamo", PollInterval: time.Second, MaxWorkers: 100,
		NATS: None, Etcd: None, Discovery: DiscoveryFiles, Files: t.TempDir(),
		Scrape: ScrapeOptions{Mode: ScrapeNone, Interval: time.Second, Timeout: collect.ScrapeTimeout}, Address: "127.0.0.1:0",
		Getenv: func(string) string { return "" }, Log: log, Warnings: []string{"--push-url is ignored"},
	}, logs
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	o, logs := filesOptions(t)
	stop, ended := testutil.Start(t, func(ctx context.Context) error { return Run(ctx, o) })
	testutil.Until(t, func() error {
		url := regexp.MustCompile(`127\.0\.0\.1:\d+/metrics`).FindString(logs.String())
		if url == "" {
			return errors.New("it serves nothing yet")
		}
		answer, err := http.Get("http://" + url)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("/metrics: %s", answer.Status)
		}
		return nil
	})
	testutil.Equal(t, "warnings", logs.Count("--push-url is ignored"), 1)
	stop()
	testutil.NoError(t, <-ended)
}

func TestRunFailsIfItCannotListen(t *testing.T) {
	o, _ := filesOptions(t)
	o.Address = "256.0.0.1:1"
	if err := Run(t.Context(), o); err == nil {
		t.Error("it serves on an address that cannot be")
	}
}
