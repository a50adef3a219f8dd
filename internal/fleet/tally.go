package fleet

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is a kind of message that the program receives.
type Kind int

// The kinds of messages.
const (
	StatsReply Kind = iota // an answer to a stats poll
	HitRate                // a KV hit-rate event
	Instances              // a change of an endpoint's key in etcd
	kinds
)

// String is the value of the label kind.
func (k Kind) String() string { return [kinds]string{"stats", "hit_rate", "instance"}[k] }

// Reason is why a message was rejected.
type Reason int

// The reasons to reject a message.
const (
	BadJSON Reason = iota // not JSON, or JSON of another shape
	BadName               // a key or subject that does not name an endpoint and a worker
	BadID                 // key and value, or reply and service, speak of different workers
	BadLoad               // a load that cannot be decoded
	reasons
)

// String is the value of the label reason.
func (r Reason) String() string { return [reasons]string{"json", "name", "mismatch", "load"}[r] }

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

// PollBuckets are the upper bounds, in seconds, of the histogram of poll durations.
var PollBuckets = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5}

// Link is a connection to a server the program works with. The zero Link is not in use.
type Link struct{ used, up atomic.Bool }

// Use says that the program works with this server.
func (l *Link) Use() { l.used.Store(true) }

// Used reports whether it does.
func (l *Link) Used() bool { return l.used.Load() }

// Set says whether the server is connected.
func (l *Link) Set(up bool) { l.up.Store(up) }

// Up reports whether it is, or is not needed.
func (l *Link) Up() bool { return l.up.Load() || !l.used.Load() }

// Tally counts what the program itself did. It needs no lock of the Fleet's.
type Tally struct {
	NATS, Etcd    Link
	Leader        atomic.Bool   // holds the unique-instance key
	Unique        atomic.Bool   // is the one program of its namespace, as far as it can know: unlike Leader it stays so while etcd is away
	OverLimit     atomic.Uint64 // workers, replies and events turned away at the limit of tracked workers
	ForeignEvents atomic.Uint64 // hit-rate events of workers of components that are not watched
	PushOK        atomic.Uint64
	PushError     atomic.Uint64
	LastPush      atomic.Int64 // the last successful one, Unix time in nanoseconds; 0: none yet

	messages [kinds]atomic.Uint64
	rejected [kinds][reasons]atomic.Uint64
	dropped  [drops]atomic.Uint64
	polls    [pollResults]atomic.Uint64

	mu      sync.Mutex
	polling Histogram
}

// Histogram is a cumulative histogram over PollBuckets.
type Histogram struct {
	Count   uint64
	Sum     float64 // seconds
	Buckets [len(PollBuckets)]uint64
}

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
	t.polling.Count++
	t.polling.Sum += took.Seconds()
	first, _ := slices.BinarySearch(PollBuckets[:], took.Seconds())
	for i := first; i < len(PollBuckets); i++ {
		t.polling.Buckets[i]++
	}
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
	return t.polling
}

// Kinds, Reasons, Drops and PollResults list every value, for those who show them all.
func Kinds() []Kind             { return upTo(kinds) }
func Reasons() []Reason         { return upTo(reasons) }
func Drops() []Drop             { return upTo(drops) }
func PollResults() []PollResult { return upTo(pollResults) }

func upTo[T ~int](n T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = T(i)
	}
	return all
}
