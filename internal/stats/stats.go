// Package stats counts what the program itself does: received, rejected and lost messages, failed
// calls, polls, scrapes, and the states of its connections. It decides nothing.
package stats

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts what the program itself did. All methods are safe for concurrent use.
type Stats struct {
	NATS              ConnState // connected, and the server denies no required subject
	NATSServer        ConnState // connected, whatever the server denies
	Etcd, Files       ConnState // registries; at most one of these two and Kubernetes is used
	Kubernetes        ConnState
	ZMQ               ConnState     // connections to publishers or to a broker
	Leader            TimedFlag     // this process holds the leader lock
	OtherLeader       atomic.Bool   // another process is known to hold the leader lock
	NoLease           atomic.Bool   // the lock has no lease: it was created manually, and perhaps no process holds it
	ActsAsLeader      TimedFlag     // this process may act as the leader of its namespace; unlike Leader it may stay set during an outage of etcd
	WasLeader         TimedFlag     // this process was the leader, and no other process has been since
	Ready             atomic.Bool   // the program has data to show
	ForeignEvents     atomic.Uint64 // hit-rate events and request traces of workers that are not watched
	SlowScrapesCut    atomic.Uint64 // scrapes whose connection was closed because the client did not read while others waited
	MissedEvents      atomic.Uint64 // events that were not received, by the gaps in their publishers' sequence numbers
	PublishersUp      atomic.Int64  // connected ZMQ publishers
	Publishers        atomic.Int64  // known ZMQ publishers
	PublishersWaiting atomic.Int64  // known ZMQ publishers above the limit of subscriptions
	PushOK            atomic.Uint64
	PushError         atomic.Uint64
	LastPush          atomic.Int64 // time of the last successful push in Unix nanoseconds; 0 before the first

	// LogDropped returns the number of lines that are missing in the program's log, because
	// they could not be written, or not fast enough. It is nil if nothing counts them. It must
	// be set before the first use of the Fleet.
	LogDropped func() uint64

	HistoryBytes     atomic.Int64  // memory of the history for the web page; 0 if there is no web page
	Streams          atomic.Int64  // open event streams to web pages
	StreamsRefused   atomic.Uint64 // streams refused because there were too many
	StreamsCutOff    atomic.Uint64 // streams closed because their clients did not read
	SnapshotsSkipped atomic.Uint64 // snapshots that streams left out because their clients were slow

	messages       [numKinds]atomic.Uint64
	rejected       [numKinds][numReasons]atomic.Uint64
	dropped        [numDrops]atomic.Uint64
	polls          [numPollResults]atomic.Uint64
	scrapes        [numScrapeResults]atomic.Uint64
	scrapeFailures [numScrapeFailures]atomic.Uint64 // failed scrapes by reason
	failures       [numPeers]atomic.Uint64
	refused        [LimitCount]atomic.Uint64

	mu            sync.Mutex
	pollDurations Histogram
	lags          Histogram
}

// Init creates the histograms. It must be called before any other method.
func (s *Stats) Init() {
	s.pollDurations, s.lags = NewHistogram(PollBounds), NewHistogram(LagBounds)
}

// RegistryUp reports whether the registry can be read. It is true without a registry.
func (s *Stats) RegistryUp() bool { return s.Etcd.Up() && s.Files.Up() && s.Kubernetes.Up() }

// CountMessage counts one received message.
func (s *Stats) CountMessage(k Kind) { s.messages[k].Add(1) }

// CountRejected counts one message, or part of a message, as rejected.
func (s *Stats) CountRejected(k Kind, r Reason) { s.AddRejected(k, r, 1) }

// AddRejected counts n messages, or parts of messages, as rejected.
func (s *Stats) AddRejected(k Kind, r Reason, n int) {
	if n > 0 {
		s.rejected[k][r].Add(uint64(n))
	}
}

// AddDropped counts n lost messages.
func (s *Stats) AddDropped(d Drop, n uint64) { s.dropped[d].Add(n) }

// CountFailure counts one failed call.
func (s *Stats) CountFailure(p Peer) { s.failures[p].Add(1) }

// Failures returns the number of failed calls to a peer.
func (s *Stats) Failures(p Peer) uint64 { return s.failures[p].Load() }

// CountRefused counts one item that a limit left no room for.
func (s *Stats) CountRefused(l Limit) { s.refused[l].Add(1) }

// Refused returns the number of items that a limit left no room for.
func (s *Stats) Refused(l Limit) uint64 { return s.refused[l].Load() }

// AllRefused returns the number of items that all limits left no room for.
func (s *Stats) AllRefused() (n uint64) {
	for l := range LimitCount {
		n += s.Refused(l)
	}
	return n
}

// Connections returns the connections with the values of the label system.
func (s *Stats) Connections() []NamedConn {
	return []NamedConn{{"nats", &s.NATS}, {"etcd", &s.Etcd}, {"file", &s.Files}, {"kubernetes", &s.Kubernetes}, {"zmq", &s.ZMQ}}
}

// NamedConn is a connection with its name.
type NamedConn struct {
	System string
	*ConnState
}

// RecordSuspension records in all connections that the process was suspended between two
// times, for example because its machine was paused.
func (s *Stats) RecordSuspension(from, to time.Time) {
	for _, c := range s.Connections() {
		c.suspended(from, to)
	}
	s.NATSServer.suspended(from, to)
}

// RecordPoll counts one poll, and records how long it took unless it failed.
func (s *Stats) RecordPoll(r PollResult, took time.Duration) {
	s.polls[r].Add(1)
	if r == PollError {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pollDurations.Observe(took.Seconds())
}

// CountScrape counts one scrape of a worker.
func (s *Stats) CountScrape(r ScrapeResult) { s.scrapes[r].Add(1) }

// Scrapes returns the number of scrapes of workers with a result.
func (s *Stats) Scrapes(r ScrapeResult) uint64 { return s.scrapes[r].Load() }

// CountScrapeFailure counts one failed scrape of a worker.
func (s *Stats) CountScrapeFailure(why ScrapeFailure) {
	s.CountScrape(ScrapeError)
	s.scrapeFailures[why].Add(1)
}

// ScrapeFailures returns the number of scrapes that failed for a reason.
func (s *Stats) ScrapeFailures(why ScrapeFailure) uint64 { return s.scrapeFailures[why].Load() }

// RecordLag records the time between sending and receiving an event, by the clocks of the
// publisher and of this host. A negative time, from a publisher whose clock is ahead, counts as 0.
func (s *Stats) RecordLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lags.Observe(max(0, lag.Seconds()))
}

// HasPolled reports whether a poll has ended without an error.
func (s *Stats) HasPolled() bool {
	return s.polls[PollOK].Load()+s.polls[PollEmpty].Load() > 0
}

// Messages returns the number of received messages of a kind.
func (s *Stats) Messages(k Kind) uint64 { return s.messages[k].Load() }

// Rejected returns the number of rejected messages of a kind.
func (s *Stats) Rejected(k Kind, r Reason) uint64 { return s.rejected[k][r].Load() }

// Dropped returns the number of lost messages.
func (s *Stats) Dropped(d Drop) uint64 { return s.dropped[d].Load() }

// Polls returns the number of polls with a result.
func (s *Stats) Polls(r PollResult) uint64 { return s.polls[r].Load() }

// PollDurations returns a copy of the histogram of the durations of polls without an error.
func (s *Stats) PollDurations() Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pollDurations.Clone()
}

// Lags returns a copy of the histogram of the lags of events.
func (s *Stats) Lags() Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lags.Clone()
}
