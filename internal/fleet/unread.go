package fleet

// PageTrouble is why a worker's own metrics page could not be read.
type PageTrouble int

// The troubles with pages.
const (
	PageTooSlow    PageTrouble = iota // its answer was not whole in time
	PageOutOfReach                    // no connection could be made
	PageUntrusted                     // the two sides do not agree on TLS
	PageStatus                        // the answer has another status than 200
	PageUnreadable                    // what comes is no metrics page, is too large, or breaks off
	pageTroubles
)

// String is the value of the label reason.
func (p PageTrouble) String() string {
	return [pageTroubles]string{"timeout", "connect", "tls", "status", "unreadable"}[p]
}

// UnreadPage says how often in a row a worker's own page could not be read, and why not the
// last time.
type UnreadPage struct {
	Times int
	Why   PageTrouble
}

// SetUnread notes which workers' pages could not be read the last time that they were to be.
// The map must not be changed any more.
func (n *Notes) SetUnread(pages map[Instance]UnreadPage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unread = pages
}

// Unread are those pages, by the endpoint that bears their workers' loads. They must not be
// changed.
func (n *Notes) Unread() map[Instance]UnreadPage {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unread
}

// ScrapeFailed counts one scrape of a worker's page that could not be read.
func (t *Tally) ScrapeFailed(why PageTrouble) {
	t.Scraped(ScrapeError)
	t.unread[why].Add(1)
}

// FailedScrapes is the number of scrapes that failed for this reason.
func (t *Tally) FailedScrapes(why PageTrouble) uint64 { return t.unread[why].Load() }

// PageTroubles list every value, for those who show them all.
func PageTroubles() []PageTrouble { return upTo(pageTroubles) }
