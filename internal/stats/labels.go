package stats

// Kind is the kind of a received message.
type Kind int

// The kinds of messages.
const (
	StatsReply    Kind = iota // a reply to a stats poll
	HitRate                   // a KV hit-rate event
	LoadEvent                 // a load event
	ForwardPass               // a forward pass event
	Trace                     // a request trace record
	InstanceKeys              // a change of an instance key in the registry
	CardKeys                  // a change of a model card in the registry
	ChannelKeys               // a change of an event channel in the registry
	WorkerMetrics             // a response of a worker's own metrics endpoint
	OtherKeys                 // a change of a registry key of an unknown kind
	numKinds
)

// String returns the value of the label kind.
func (k Kind) String() string {
	return [numKinds]string{"stats", "hit_rate", "load", "forward_pass", "trace", "instance", "card", "channel", "worker_page", "other"}[k]
}

// Reason is the reason why a message was rejected.
type Reason int

// The reasons to reject a message.
const (
	BadJSON       Reason = iota // not JSON, or not the expected JSON
	BadName                     // a key or subject without the name of an endpoint and a worker
	BadID                       // key and value, or reply and service, have different worker ids
	BadLoad                     // a load that cannot be decoded
	BadMsgpack                  // not msgpack, or not the expected msgpack
	BadFrames                   // a ZMQ message that is not an event
	NoWorker                    // a forward pass event or a request trace record without a worker id
	Estimate                    // a load that a router estimated
	Repeated                    // an event that was received before
	BadText                     // not the Prometheus text format
	TooLarge                    // a metrics response above the size limit
	NotRegistered               // a message for an endpoint where no worker is registered
	Late                        // a reply to an old poll
	UnknownKind                 // a registry key of an unknown kind, which is not an error
	OutOfRange                  // an impossible value, such as a fraction of 62; the other values of the message count
	numReasons
)

// String returns the value of the label reason.
func (r Reason) String() string {
	return [numReasons]string{"json", "name", "mismatch", "load", "msgpack", "frames", "no_worker", "estimate", "repeated", "text", "size", "not_registered", "late", "unknown_kind", "range"}[r]
}

// Peer is a system that the program calls.
type Peer int

// The peers.
const (
	PeerNATS Peer = iota
	PeerEtcd
	PeerKubernetes
	PeerFiles         // the directory of file discovery
	PeerZMQ           // ZMQ publishers and brokers
	PeerWorkerMetrics // the workers' own metrics endpoints
	PeerPushgateway   // the Pushgateway
	numPeers
)

// String returns the value of the label source.
func (p Peer) String() string {
	return [numPeers]string{"nats", "etcd", "kubernetes", "file", "zmq", "worker_page", "push"}[p]
}

// Limit is a limit on what the program keeps.
type Limit int

// The limits.
const (
	WorkerLimit       Limit = iota // tracked workers
	EndpointLimit                  // endpoints
	AttachmentLimit                // endpoints of one worker, or of all workers together
	RankLimit                      // data parallel ranks of one worker, or of all workers together
	ChannelLimit                   // event channels
	SubscriptionLimit              // simultaneous subscriptions to ZMQ publishers
	LimitCount                     // number of values
)

// String returns the value of the label kind.
func (l Limit) String() string {
	return [LimitCount]string{"worker", "endpoint", "attachment", "rank", "channel", "subscription"}[l]
}

// Drop is the reason why a message was lost before it was processed or sent.
type Drop int

// The reasons to drop a message.
const (
	QueueFull    Drop = iota // the NATS client's queue was full
	OverMaxBytes             // an l2c event above the server's max_payload
	numDrops
)

// String returns the value of the label reason.
func (d Drop) String() string { return [numDrops]string{"queue_full", "l2c_over_max_payload"}[d] }

// PollResult is how a stats poll ended.
type PollResult int

// The results of a poll.
const (
	PollOK    PollResult = iota // at least one worker of a watched endpoint answered
	PollEmpty                   // no worker answered
	PollError                   // the request could not be sent
	numPollResults
)

// String returns the value of the label result.
func (r PollResult) String() string { return [numPollResults]string{"ok", "empty", "error"}[r] }

// ScrapeResult is how a scrape of a worker's own metrics ended.
type ScrapeResult int

// The results of a scrape.
const (
	ScrapeOK    ScrapeResult = iota // the response has values that the program uses
	ScrapeEmpty                     // the response has no such values
	ScrapeError                     // there was no response, or it could not be read
	numScrapeResults
)

// String returns the value of the label result.
func (r ScrapeResult) String() string {
	return [numScrapeResults]string{"ok", "empty", "error"}[r]
}

// ScrapeFailure is the reason why a worker's own metrics could not be read.
type ScrapeFailure int

// The reasons why workers' metrics could not be read.
const (
	ScrapeTimedOut     ScrapeFailure = iota // the response was not complete in time
	ScrapeNotConnected                      // no connection could be established
	ScrapeTLSFailed                         // the TLS handshake failed
	ScrapeBadStatus                         // the response has another status than 200
	ScrapeUnreadable                        // the response is not in the metrics format, too large, or truncated
	numScrapeFailures
)

// String returns the value of the label reason.
func (f ScrapeFailure) String() string {
	return [numScrapeFailures]string{"timeout", "connect", "tls", "status", "unreadable"}[f]
}

// Kinds, Reasons, Drops, PollResults, ScrapeResults, ScrapeFailures, Peers and Limits return
// every value of their type, in order.
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
