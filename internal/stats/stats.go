package stats

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is a kind of message that the program receives.
type Kind int

// The kinds of messages.
const (
	StatsReply    Kind = iota // an answer to a stats poll
	HitRate                   // a KV hit-rate event
	LoadEvent                 // a published load
	ForwardPass               // a forward pass
	Trace                     // a record of the request trace
	InstanceKeys              // a change of an endpoint's key in the registry
	CardKeys                  // of a model card's
	ChannelKeys               // of an event channel's
	WorkerMetrics             // a worker's own metrics page
	OtherKeys                 // of an entry of the registry of a kind that we do not know
	numKinds
)

// String is the value of the label kind.
func (k Kind) String() string {
	return [numKinds]string{"stats", "hit_rate", "load", "forward_pass", "trace", "instance", "card", "channel", "worker_page", "other"}[k]
}

// Reason is why a message was rejected.
type Reason int

// The reasons to reject a message.
const (
	BadJSON       Reason = iota // not JSON, or JSON of another shape
	BadName                     // a key or subject that does not name an endpoint and a worker
	BadID                       // key and value, or reply and service, speak of different workers
	BadLoad                     // a load that cannot be decoded
	BadMsgpack                  // not msgpack, or msgpack of another shape
	BadFrames                   // a ZMQ message that is no event
	NoWorker                    // a forward pass of an engine that was not told its worker's id, or the trace of a request that names none
	Estimate                    // a load that a router made up
	Repeated                    // an event that came before
	BadText                     // not the Prometheus text format
	TooLarge                    // a page beyond the limit
	NotRegistered               // of a worker at an endpoint where neither it nor another is registered
	Late                        // an answer to a poll of long ago
	UnknownKind                 // a key of the registry of a kind that we do not know: nothing is wrong with it
	OutOfRange                  // a value of a load or of a page that cannot be, as a fraction of 62: the rest of it counts
	numReasons
)

// String is the value of the label reason.
func (r Reason) String() string {
	return [numReasons]string{"json", "name", "mismatch", "load", "msgpack", "frames", "no_worker", "estimate", "repeated", "text", "size", "not_registered", "late", "unknown_kind", "range"}[r]
}

// Peer is what the program makes calls to.
type Peer int

// The peers.
const (
	PeerNATS Peer = iota
	PeerEtcd
	PeerKubernetes
	PeerFiles         // the directory of file discovery
	PeerZMQ           // publishers and brokers
	PeerWorkerMetrics // the workers' own metrics
	PeerPushgateway   // where metrics are pushed to
	numPeers
)

// String is the value of the label source.
func (p Peer) String() string {
	return [numPeers]string{"nats", "etcd", "kubernetes", "file", "zmq", "worker_page", "push"}[p]
}

// Limit is a bound on what is kept of the fleet.
type Limit int

// The limits.
const (
	WorkerLimit       Limit = iota // tracked workers
	EndpointLimit                  // endpoints
	AttachmentLimit                // endpoints of one worker, or of all workers together
	RankLimit                      // data parallel ranks of one worker, or of all workers together
	ChannelLimit                   // event channels
	SubscriptionLimit              // ZMQ publishers that are subscribed to at once
	LimitCount                     // how many there are
)

// String is the value of the label kind.
func (l Limit) String() string {
	return [LimitCount]string{"worker", "endpoint", "attachment", "rank", "channel", "subscription"}[l]
}

// Drop is a reason for losing a message that was, or could have been, received or sent.
type Drop int

// The reasons to drop a message.
const (
	QueueFull    Drop = iota // the NATS client's queue was full
	OverMaxBytes             // an l2c event above the server's max_payload
	numDrops
)

// String is the value of the label reason.
func (d Drop) String() string { return [numDrops]string{"queue_full", "l2c_over_max_payload"}[d] }

// PollResult is how a stats poll ended.
type PollResult int

// The results of a poll.
const (
	PollOK    PollResult = iota // at least one worker of a watched endpoint answered
	PollEmpty                   // none did
	PollError                   // it could not be asked
	numPollResults
)

// String is the value of the label result.
func (r PollResult) String() string { return [numPollResults]string{"ok", "empty", "error"}[r] }

// ScrapeResult is how the scrape of a worker's own metrics page ended.
type ScrapeResult int

// The results of a scrape.
const (
	ScrapeOK    ScrapeResult = iota // something on the page is of use
	ScrapeEmpty                     // nothing is
	ScrapeError                     // there was no page, or none that could be read
	numScrapeResults
)

// String is the value of the label result.
func (r ScrapeResult) String() string {
	return [numScrapeResults]string{"ok", "empty", "error"}[r]
}

// PageTrouble is why a worker's own metrics page could not be read.
type ScrapeFailure int

// The troubles with pages.
const (
	ScrapeTimedOut     ScrapeFailure = iota // its answer was not whole in time
	ScrapeNotConnected                      // no connection could be made
	ScrapeTLSFailed                         // the two sides do not agree on TLS
	ScrapeBadStatus                         // the answer has another status than 200
	ScrapeUnreadable                        // what comes is no metrics page, is too large, or breaks off
	numScrapeFailures
)

// String is the value of the label reason.
func (f ScrapeFailure) String() string {
	return [numScrapeFailures]string{"timeout", "connect", "tls", "status", "unreadable"}[f]
}

// Claim is something that holds for good, or for a time. It needs nobody to take it
// back when the time is over, so that a process that was stopped meanwhile does not go
// on as if nothing had happened. The zero Claim does not hold.
type TimedFlag struct{ until atomic.Int64 } // since epoch, in nanoseconds; 0: not at all

const forever = math.MaxInt64

// epoch is a time before every claim; the clock that it carries cannot be set.
var epoch = time.Now().Add(-time.Hour)

// Store makes it hold for good, or not at all.
func (f *TimedFlag) Store(holds bool) {
	if holds {
		f.until.Store(forever)
	} else {
		f.until.Store(0)
	}
}

// For makes it hold for so long, counted from a moment.
func (f *TimedFlag) StoreFor(d time.Duration, from time.Time) {
	f.until.Store(int64(from.Add(d).Sub(epoch)))
}

// Expire lets a claim that holds for good hold for so long only.
func (f *TimedFlag) ExpireIn(in time.Duration) {
	f.until.CompareAndSwap(forever, int64(time.Since(epoch)+in))
}

// Load reports whether it holds.
func (f *TimedFlag) Load() bool {
	until := f.until.Load()
	return until == forever || until != 0 && int64(time.Since(epoch)) < until
}

// Await returns when it holds, or does not, as asked, and when ctx ends.
func (f *TimedFlag) Wait(ctx context.Context, holds bool) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for f.Load() != holds {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Tally counts what the program itself did. It needs no lock of the Fleet's.
type Stats struct {
	NATS              ConnState // connected, and denies nothing that is required
	NATSServer        ConnState // NATS itself, whatever it denies
	Etcd, Files       ConnState // where workers register; one of these three at most is in use
	Kubernetes        ConnState
	ZMQ               ConnState     // to publishers, or to a broker
	Leader            TimedFlag     // holds the unique-instance key
	OtherLeader       atomic.Bool   // another program is known to hold it
	NoLease           atomic.Bool   // it hangs on no lease: it was put by hand, and no program holds it for certain
	ActsAsLeader      TimedFlag     // is the one program of its namespace, and may act as such: unlike Leader it may stay so while etcd is away
	WasLeader         TimedFlag     // has been that, and no other program is since
	Ready             atomic.Bool   // the program has had something to show
	ForeignEvents     atomic.Uint64 // hit-rate events and traces of workers that are not watched
	SlowScrapesCut    atomic.Uint64 // scrapes whose clients did not read while others waited
	MissedEvents      atomic.Uint64 // events that never came, by the gaps in their publishers' sequences
	PublishersUp      atomic.Int64  // ZMQ publishers that are connected
	Publishers        atomic.Int64  // ZMQ publishers that are announced
	PublishersWaiting atomic.Int64  // those of them that find no place
	PushOK            atomic.Uint64
	PushError         atomic.Uint64
	LastPush          atomic.Int64 // the last successful one, Unix time in nanoseconds; 0: none yet

	// LogDropped is the number of lines missing in the program's log, which could not be
	// written, or not fast enough; nil: they are not counted. It is set before the Fleet is read.
	LogDropped func() uint64

	HistoryBytes     atomic.Int64  // memory of what is remembered for those who look; 0: nobody can
	Streams          atomic.Int64  // to pages that are open
	StreamsRefused   atomic.Uint64 // because there were too many
	StreamsCutOff    atomic.Uint64 // because their clients did not read
	SnapshotsSkipped atomic.Uint64 // snapshots that a stream left out because its client was slow

	messages       [numKinds]atomic.Uint64
	rejected       [numKinds][numReasons]atomic.Uint64
	dropped        [numDrops]atomic.Uint64
	polls          [numPollResults]atomic.Uint64
	scrapes        [numScrapeResults]atomic.Uint64
	scrapeFailures [numScrapeFailures]atomic.Uint64 // scrapes that failed
	failures       [numPeers]atomic.Uint64
	refused        [LimitCount]atomic.Uint64

	mu            sync.Mutex
	pollDurations Histogram
	lags          Histogram
}

// Init makes the histograms ready. It is called before anything is counted.
func (s *Stats) Init() {
	s.pollDurations, s.lags = NewHistogram(PollBounds), NewHistogram(LagBounds)
}

// RegistryUp reports whether the registry can be read, or there is none.
func (s *Stats) RegistryUp() bool { return s.Etcd.Up() && s.Files.Up() && s.Kubernetes.Up() }

// Receive counts one message.
func (s *Stats) CountMessage(k Kind) { s.messages[k].Add(1) }

// Reject counts one message, or part of one, that was of no use.
func (s *Stats) CountRejected(k Kind, r Reason) { s.AddRejected(k, r, 1) }

// RejectMany counts n of them, or n parts of them.
func (s *Stats) AddRejected(k Kind, r Reason, n int) {
	if n > 0 {
		s.rejected[k][r].Add(uint64(n))
	}
}

// Drop counts n lost messages.
func (s *Stats) AddDropped(d Drop, n uint64) { s.dropped[d].Add(n) }

// Fail counts one call that failed.
func (s *Stats) CountFailure(p Peer) { s.failures[p].Add(1) }

// Failed is the number of calls to a peer that failed.
func (s *Stats) Failures(p Peer) uint64 { return s.failures[p].Load() }

// TurnAway counts one of what a limit leaves no room for.
func (s *Stats) CountRefused(l Limit) { s.refused[l].Add(1) }

// TurnedAway is how many a limit has left no room for.
func (s *Stats) Refused(l Limit) uint64 { return s.refused[l].Load() }

// OverLimit is how many all limits have left no room for.
func (s *Stats) AllRefused() (n uint64) {
	for l := range LimitCount {
		n += s.Refused(l)
	}
	return n
}

// Links are the connections, by the value of the label system.
func (s *Stats) Connections() []NamedConn {
	return []NamedConn{{"nats", &s.NATS}, {"etcd", &s.Etcd}, {"file", &s.Files}, {"kubernetes", &s.Kubernetes}, {"zmq", &s.ZMQ}}
}

// NamedLink is a connection with its name.
type NamedConn struct {
	System string
	*ConnState
}

// Stood tells all connections that the process stood still between two moments, as when
// it was stopped or its machine was paused.
func (s *Stats) RecordSuspension(from, to time.Time) {
	for _, l := range s.Connections() {
		l.suspended(from, to)
	}
	s.NATSServer.suspended(from, to)
}

// Polled counts one poll.
func (s *Stats) RecordPoll(r PollResult, took time.Duration) {
	s.polls[r].Add(1)
	if r == PollError {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pollDurations.Observe(took.Seconds())
}

// Scraped counts one scrape of a worker's page.
func (s *Stats) CountScrape(r ScrapeResult) { s.scrapes[r].Add(1) }

// Scrapes is the number of scrapes of workers' pages with this result.
func (s *Stats) Scrapes(r ScrapeResult) uint64 { return s.scrapes[r].Load() }

// ScrapeFailed counts one scrape of a worker's page that could not be read.
func (s *Stats) CountScrapeFailure(why ScrapeFailure) {
	s.CountScrape(ScrapeError)
	s.scrapeFailures[why].Add(1)
}

// FailedScrapes is the number of scrapes that failed for this reason.
func (s *Stats) ScrapeFailures(why ScrapeFailure) uint64 { return s.scrapeFailures[why].Load() }

// Lagged books how long an event was under way, by its publisher's clock and ours.
// Where theirs is ahead it took no time.
func (s *Stats) RecordLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lags.Observe(max(0, lag.Seconds()))
}

// HasPolled reports whether a poll has been done.
func (s *Stats) HasPolled() bool {
	return s.polls[PollOK].Load()+s.polls[PollEmpty].Load() > 0
}

// Messages is the number of messages of a kind.
func (s *Stats) Messages(k Kind) uint64 { return s.messages[k].Load() }

// Rejected is the number of rejected messages of a kind.
func (s *Stats) Rejected(k Kind, r Reason) uint64 { return s.rejected[k][r].Load() }

// Dropped is the number of lost messages.
func (s *Stats) Dropped(d Drop) uint64 { return s.dropped[d].Load() }

// Polls is the number of polls with this result.
func (s *Stats) Polls(r PollResult) uint64 { return s.polls[r].Load() }

// PollDurations is the histogram of the polls that were done.
func (s *Stats) PollDurations() Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pollDurations.Clone()
}

// Lags is the histogram of the events that carry their time.
func (s *Stats) Lags() Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lags.Clone()
}

// Kinds, Reasons, Drops, PollResults, ScrapeResults, PageTroubles, Peers and Limits list every value, for
// those who show them all.
func Kinds() []Kind                   { return allUpTo(numKinds) }
func Reasons() []Reason               { return allUpTo(numReasons) }
func Drops() []Drop                   { return allUpTo(numDrops) }
func PollResults() []PollResult       { return allUpTo(numPollResults) }
func ScrapeResults() []ScrapeResult   { return allUpTo(numScrapeResults) }
func ScrapeFailures() []ScrapeFailure { return allUpTo(numScrapeFailures) }
func Peers() []Peer                   { return allUpTo(numPeers) }
func Limits() []Limit                 { return allUpTo(LimitCount) }

func allUpTo[T ~int](n T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = T(i)
	}
	return all
}
