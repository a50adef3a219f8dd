package monitor

import (
	"fmt"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// measureUnread returns how many scrapes of the worker's own metrics failed in a row. It is 0 for
// a worker that is not scraped.
func measureUnread(m *Monitor, r *row) number { return fleet.Some(float64(m.failedScrape(r).Times)) }

// failedScrape returns the failed scrapes of the row's worker, or the zero value if the last one
// succeeded or the worker is not scraped.
func (m *Monitor) failedScrape(r *row) fleet.FailedScrapes {
	return m.failedScrapes[fleet.Instance{Endpoint: r.endpoint.Endpoint, ID: r.id.Lease}]
}

// scrapeErrorText returns the text for a kind of scrape error, and the advice.
func (m *Monitor) scrapeErrorText(why stats.ScrapeFailure) (text, check string) {
	switch why {
	case stats.ScrapeTimedOut:
		return fmt.Sprintf("timed out (limit %s)", m.options.ScrapeTimeout), "Does the response take longer while the worker is busy? Then raise --scrape-timeout."
	case stats.ScrapeNotConnected:
		return "the connection failed",
			"Does the worker serve metrics at that address (DYN_SYSTEM_PORT), and do network policies allow the connection? If it serves them elsewhere, set --worker-metrics-url."
	case stats.ScrapeTLSFailed:
		return "TLS failed", "--worker-tls-ca must have the authority that signed the workers' certificates. If workers demand a client certificate, set --worker-tls-cert and --worker-tls-key. " +
			"The host of --worker-metrics-url must be in the workers' certificates."
	case stats.ScrapeBadStatus:
		return "the status was not 200", "Does the worker serve metrics at that path? --worker-metrics-url sets the path, and http or https."
	}
	return "the response is not in a metrics format", "Is it complete, and no larger than 4 MiB?"
}

func unreadMessage(m *Monitor, p *problem) message {
	byReason := make(map[stats.ScrapeFailure][]fleet.WorkerID)
	for _, r := range firstRows(p.rows) {
		why := m.failedScrape(r).Why
		byReason[why] = append(byReason[why], r.id)
	}
	var all, checks []string
	for _, why := range stats.ScrapeFailures() {
		if ids := byReason[why]; len(ids) > 0 {
			text, check := m.scrapeErrorText(why)
			all, checks = append(all, text+": "+summarize(ids, displayID)), append(checks, check)
		}
	}
	check := strings.Join(checks, " ")
	return message{
		title:  "The metrics of " + p.workersOfEndpoint() + " cannot be read",
		detail: fmt.Sprintf("%s: %s. Values that are known only from there are not shown.", p.endpoint, strings.Join(all, "; ")),
		check:  lowerFirst(check) + " With DYN_LOG=info,metrics=debug the log has each error.",
	}
}

func unreadEndedMessage(m *Monitor, p *problem) message {
	return message{
		title:  "The metrics of " + p.workersOfEndpoint() + " could not be read",
		detail: fmt.Sprintf("%s: %s, several times in a row until %s.", p.endpoint, workerNames(p.rows), p.lastTrueAgo(m)),
	}
}
