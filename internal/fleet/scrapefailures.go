package fleet

import "dynamo-metrics/internal/stats"

// UnreadPage says how often in a row a worker's own page could not be read, and why not the
// last time.
type UnreadPage struct {
	Times int
	Why   stats.PageTrouble
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
