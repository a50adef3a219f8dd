package fleet

import "dynamo-metrics/internal/stats"

// FailedScrapes is how often in a row a worker's own metrics could not be read, and the reason
// of the last failure.
type FailedScrapes struct {
	Times int
	Why   stats.ScrapeFailure
}

// SetFailedScrapes replaces the workers whose last scrape failed. The caller must not change
// the map afterwards.
func (d *Diagnostics) SetFailedScrapes(targets map[Instance]FailedScrapes) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failedScrapes = targets
}

// FailedScrapes returns the workers whose last scrape failed, at the endpoint with their load.
// The caller must not change the map.
func (d *Diagnostics) FailedScrapes() map[Instance]FailedScrapes {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failedScrapes
}
