package fleet

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
	StatsReply  Kind = iota // an answer to a stats poll
	HitRate                 // a KV hit-rate event
	LoadEvent               // a published load
	ForwardPass             // a forward pass
	Trace                   // a record of the request trace
	Instances               // a change of an endpoint's key in the registry
	Cards                   // of a model card's
	Channels                // of an event channel's
	Pages                   // a worker's own metrics page
	kinds
)

// String is the value of the label kind.
func (k Kind) String() string {
	return [kinds]string{"stats", "hit_rate", "load", "forward_pass", "trace", "instance", "card", "channel", "worker_page"}[k]
}

// Reason is why a message was rejected.
type Reason int

// The reasons to reject a message.
const (
	BadJSON   Reason = iota // not JSON, or JSON of another shape
	BadName                 // a key or subject that does not name an endpoint and a worker
	BadID                   // key and value, or reply and service, speak of different workers
	BadLoad                 // a load that cannot be decoded
	BadPack                 // not msgpack, or msgpack of another shape
	BadFrames               // a ZMQ message that is no event
	NoWorker                // a forward pass of an engine that was not told its worker's id
	Estimate                // a load that a router made up
	Repeated                // an event that came before
	BadText                 // not the Prometheus text format
	TooLarge                // a page beyond the limit
	reasons
)

// String is the value of the label reason.
func (r Reason) String() string {
	return [reasons]string{"json", "name", "mismatch", "load", "msgpack", "frames", "no_worker", "estimate", "repeated", "text", "size"}[r]
}

// Drop is a reason for losing a message that was, or could have been, received or sent.
type Drop int

// The reasons to drop a message.
const (
	QueueFull    Drop = iota // the NATS client's queue was full
	OverMaxBytes             // an l2c event above the server's max_payload
	drops
)

// String is the value of the label reason.
func (d Drop) String() string { return [drops]string{"queue_full", "l2c_over_max_payload"}[d] }

// PollResult is how a stats poll ended.
type PollResult int

// The results of a poll.
const (
	PollOK    PollResult = iota // at least one worker of a watched endpoint answered
	PollEmpty                   // none did
	PollError                   // it could not be asked
	pollResults
)

// String is the value of the label result.
func (r PollResult) String() string { return [pollResults]string{"ok", "empty", "error"}[r] }

// ScrapeResult is how the scrape of a worker's own metrics page ended.
type ScrapeResult int

// The results of a scrape.
const (
	ScrapeOK    ScrapeResult = iota // something on the page is of use
	ScrapeEmpty                     // nothing is
	ScrapeError                     // there was no page, or none that could be read
	scrapeResults
)

// String is the value of the label result.
func (r ScrapeResult) String() string {
	return [scrapeResults]string{"ok", "empty", "error"}[r]
}

// Link is a connection to a server the program works with. The zero Link is not in use.
type Link struct{ used, up, off atomic.Bool }

// Use says that the program works with this server.
func (l *Link) Use() { l.used.Store(true) }

// Used reports whether it does.
func (l *Link) Used() bool { return l.used.Load() }

// TurnOff says that the program is told to do without this server.
func (l *Link) TurnOff() { l.off.Store(true) }

// Off reports whether it is.
func (l *Link) Off() bool { return l.off.Load() }

// Set says whether the server is connected.
func (l *Link) Set(up bool) { l.up.Store(up) }

// Up reports whether it is, or is not needed.
func (l *Link) Up() bool { return l.up.Load() || !l.used.Load() }

// Claim is something that holds for good, or for a time. It needs nobody to take it
// back when the time is over, so that a process that was stopped meanwhile does not go
// on as if nothing had happened. The zero Claim does not hold.
type Claim struct{ until atomic.Int64 } // since epoch, in nanoseconds; 0: not at all

const forever = math.MaxInt64

// epoch is a time before every claim; the clock that it carries cannot be set.
var epoch = time.Now().Add(-time.Hour)

// Store makes it hold for good, or not at all.
func (c *Claim) Store(holds bool) {
	if holds {
		c.until.Store(forever)
	} else {
		c.until.Store(0)
	}
}

// For makes it hold for so long, counted from a moment.
func (c *Claim) For(d time.Duration, from time.Time) { c.until.Store(int64(from.Add(d).Sub(epoch))) }

// Load reports whether it holds.
func (c *Claim) Load() bool {
	until := c.until.Load()
	return until == forever || until != 0 && int64(time.Since(epoch)) < until
}

// Await returns when it holds, or does not, as asked, and when ctx ends.
func (c *Claim) Await(ctx context.Context, holds bool) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for c.Load() != holds {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Tally counts what the program itself did. It needs no lock of the Fleet's.
type Tally struct {
	NATS          Link
	Etcd, Files   Link // where workers register; one of these three at most is in use
	Kubernetes    Link
	ZMQ           Link          // to publishers, or to a broker
	Leader        atomic.Bool   // holds the unique-instance key
	Unique        Claim         // is the one program of its namespace, as far as it can know: unlike Leader it stays so while etcd is away
	OverLimit     atomic.Uint64 // workers, replies and events turned away at the limit of tracked workers
	ForeignEvents atomic.Uint64 // hit-rate events and traces of workers that are not watched
	CutOff        atomic.Uint64 // scrapes whose clients did not read while others waited
	Gaps          atomic.Uint64 // events that never came, by the gaps in their publishers' sequences
	PublishersUp  atomic.Int64  // ZMQ publishers that are connected
	Publishers    atomic.Int64  // ZMQ publishers that are announced
	PushOK        atomic.Uint64
	PushError     atomic.Uint64
	LastPush      atomic.Int64 // the last successful one, Unix time in nanoseconds; 0: none yet

	HistoryBytes   atomic.Int64  // memory of what is remembered for those who look; 0: nobody can
	Streams        atomic.Int64  // to pages that are open
	StreamsRefused atomic.Uint64 // because there were too many
	StreamsCutOff  atomic.Uint64 // because their clients did not read
	Skipped        atomic.Uint64 // snapshots that a stream left out because its client was slow

	messages [kinds]atomic.Uint64
	rejected [kinds][reasons]atomic.Uint64
	dropped  [drops]atomic.Uint64
	polls    [pollResults]atomic.Uint64
	scrapes  [scrapeResults]atomic.Uint64

	mu      sync.Mutex
	polling Histogram
	lags    Histogram
}

// RegistryUp reports whether the registry can be read, or there is none.
func (t *Tally) RegistryUp() bool { return t.Etcd.Up() && t.Files.Up() && t.Kubernetes.Up() }

// Receive counts one message.
func (t *Tally) Receive(k Kind) { t.messages[k].Add(1) }

// Reject counts one message, or part of one, that was of no use.
func (t *Tally) Reject(k Kind, r Reason) { t.rejected[k][r].Add(1) }

// Drop counts n lost messages.
func (t *Tally) Drop(d Drop, n uint64) { t.dropped[d].Add(n) }

// Polled counts one poll.
func (t *Tally) Polled(r PollResult, took time.Duration) {
	t.polls[r].Add(1)
	if r == PollError {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.polling.Observe(took.Seconds())
}

// Scraped counts one scrape of a worker's page.
func (t *Tally) Scraped(r ScrapeResult) { t.scrapes[r].Add(1) }

// Scrapes is the number of scrapes of workers' pages with this result.
func (t *Tally) Scrapes(r ScrapeResult) uint64 { return t.scrapes[r].Load() }

// Lagged books how long an event was under way, by its publisher's clock and ours.
// Where theirs is ahead it took no time.
func (t *Tally) Lagged(lag time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lags.Observe(max(0, lag.Seconds()))
}

// HasPolled reports whether a poll has been done.
func (t *Tally) HasPolled() bool {
	return t.polls[PollOK].Load()+t.polls[PollEmpty].Load() > 0
}

// Messages is the number of messages of a kind.
func (t *Tally) Messages(k Kind) uint64 { return t.messages[k].Load() }

// Rejected is the number of rejected messages of a kind.
func (t *Tally) Rejected(k Kind, r Reason) uint64 { return t.rejected[k][r].Load() }

// Dropped is the number of lost messages.
func (t *Tally) Dropped(d Drop) uint64 { return t.dropped[d].Load() }

// Polls is the number of polls with this result.
func (t *Tally) Polls(r PollResult) uint64 { return t.polls[r].Load() }

// PollDurations is the histogram of the polls that were done.
func (t *Tally) PollDurations() Histogram {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.polling.Clone()
}

// Lags is the histogram of the events that carry their time.
func (t *Tally) Lags() Histogram {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lags.Clone()
}

// Kinds, Reasons, Drops, PollResults and ScrapeResults list every value, for those who show
// them all.
func Kinds() []Kind                 { return upTo(kinds) }
func Reasons() []Reason             { return upTo(reasons) }
func Drops() []Drop                 { return upTo(drops) }
func PollResults() []PollResult     { return upTo(pollResults) }
func ScrapeResults() []ScrapeResult { return upTo(scrapeResults) }

func upTo[T ~int](n T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = T(i)
	}
	return all
}
