package fleet

import "dynamo-metrics/internal/stats"

// UnreadPage says how often in a row a worker's own page could not be read, and why not the
// last time.
type FailedScrapes struct {
	Times int
	Why   stats.ScrapeFailure
}

// SetUnread notes which workers' pages could not be read the last time that they were to be.
// The map must not be changed any more.
func (d *Diagnostics) SetFailedScrapes(targets map[Instance]FailedScrapes) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failedScrapes = targets
}

// Unread are those pages, by the endpoint that bears their workers' loads. They must not be
// changed.
func (d *Diagnostics) FailedScrapes() map[Instance]FailedScrapes {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failedScrapes
}
