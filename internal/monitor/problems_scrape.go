package monitor

import (
	"fmt"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// unreadTimes is how often in a row the worker's own page could not be read. One that is not
// to be read has not failed.
func measureUnread(m *Monitor, r *row) number { return fleet.Some(float64(m.failedScrape(r).Times)) }

// unreadPage is what is known of the page of the row's worker; the zero one if it is read, or
// is not to be.
func (m *Monitor) failedScrape(r *row) fleet.FailedScrapes {
	return m.failedScrapes[fleet.Instance{Endpoint: r.endpoint.Endpoint, ID: r.id.Lease}]
}

// pageTrouble is what is said of pages that cannot be read, by why, and where to look.
func (m *Monitor) scrapeErrorText(why stats.ScrapeFailure) (text, check string) {
	switch why {
	case stats.ScrapeTimedOut:
		return fmt.Sprintf("not answered in time (%s at most)", m.options.ScrapeTimeout), "Does a page take longer while its worker is busy? Then raise --scrape-timeout."
	case stats.ScrapeNotConnected:
		return "cannot be connected to",
			"Does a page listen there (DYN_SYSTEM_PORT), and do network policies let this program in? If it is elsewhere: --worker-metrics-url."
	case stats.ScrapeTLSFailed:
		return "TLS fails", "--worker-tls-ca says who may have signed the workers' certificates, --worker-tls-cert and --worker-tls-key who we are, " +
			"if they ask, and the host of --worker-metrics-url must be in their certificates."
	case stats.ScrapeBadStatus:
		return "answered with another status than 200", "Is there a page at that path? --worker-metrics-url says which, and whether it is http or https."
	}
	return "answered with what is no metrics page", "Is it a whole one, of 4 MiB at most?"
}

func unreadMessage(m *Monitor, p *problem) message {
	of := make(map[stats.ScrapeFailure][]fleet.WorkerID)
	n := countWorkers(p.rows)
	for _, r := range firstRows(p.rows) {
		why := m.failedScrape(r).Why
		of[why] = append(of[why], r.id)
	}
	var all, checks []string
	for _, why := range stats.ScrapeFailures() {
		if ids := of[why]; len(ids) > 0 {
			text, check := m.scrapeErrorText(why)
			all, checks = append(all, text+": "+summarize(ids, displayID)), append(checks, check)
		}
	}
	check := strings.Join(checks, " ")
	return message{
		title:  ifElse(n == 1, "The metrics page of ", "The metrics pages of ") + p.workersOfEndpoint() + " cannot be read",
		detail: fmt.Sprintf("%s: %s. What is known by %s alone is not shown.", p.endpoint, strings.Join(all, "; "), ifElse(n == 1, "it", "them")),
		check:  lowerFirst(check) + " With DYN_LOG=info,metrics=debug the log has each with its error.",
	}
}

func unreadEndedMessage(m *Monitor, p *problem) message {
	one := countWorkers(p.rows) == 1
	return message{
		title:  ifElse(one, "The metrics page of ", "The metrics pages of ") + p.workersOfEndpoint() + " could not be read",
		detail: fmt.Sprintf("%s: %s, several times in a row until %s.", p.endpoint, workerNames(p.rows), p.lastTrueAgo(m)),
	}
}
