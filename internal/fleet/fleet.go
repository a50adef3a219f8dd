package fleet

import (
	"cmp"
	"container/list"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/stats"
)

// retention is how long hit-rate counters outlive the last event of a worker
// that is neither registered nor answering, and how long an endpoint that has
// lost its last worker is still shown, so that alerts can see the loss.
const retention = 10 * time.Minute

// maxSeats bounds the endpoints of one worker.
const maxAttachments = 64

// missesToForget is how many polls in a row a worker may miss before its load is forgotten.
const maxMissedPolls = 2

// unknown is the name of the endpoint where hit-rate events of ids nobody knows are
// booked when the program was not told one endpoint to watch.
const unknown = "unknown"

// Target is what the program watches. An empty Component means all of them, an empty
// Name all endpoints of the component. Namespace is empty where one namespace is
// watched, else what the names of those that are begin with, and "*".
type Target Endpoint

// Several reports whether several namespaces are watched, so that endpoints name theirs.
func (t Target) MultipleNamespaces() bool { return t.Namespace != "" }

// Covers reports whether e is watched. Names match exactly: "generate" never covers "generate2".
func (t Target) Covers(e Endpoint) bool {
	return t.CoversComponent(e.Component) && (t.Name == "" || t.Name == e.Name)
}

// CoversComponent reports whether endpoints of the component may be watched.
func (t Target) CoversComponent(component string) bool {
	return t.Component == "" || t.Component == component
}

// Fleet is the one state of the program. All methods may be called at once from
// any goroutine; none blocks, none looks at the clock.
type Fleet struct {
	Stats       stats.Stats
	Diagnostics Diagnostics

	target         Target
	unknown        Endpoint
	workerLimit    int
	bounds         bounds
	registry       bool
	synced         chan struct{} // closed when it is known who is registered
	endpointsAdded atomic.Uint64

	snapshots sync.Pool // of *Snapshot that nobody reads any more

	mu                      sync.Mutex
	now                     time.Time
	expiredAt               time.Time
	workers                 index
	unregisteredWorkers     lruQueue // those of workers of which the registry has nothing, but for static ones
	unregisteredAttachments lruQueue // those of workers with attachments where they are not registered
	pendingWorkers          lruQueue // those of workers of which something waits; in no order
	footprint               footprint
	endpoints               map[Endpoint]*endpoint
	channels                channels
	loadCount               uint64 // loads received: the order of each

	sorted                []*endpoint // sorted, unless that must be arranged anew
	unsorted              bool
	statusCounts          [numStatuses]int // endpoints, by why they are known
	unregisteredEndpoints list.List        // of *endpoint: what can be pushed out of those that stand so, the oldest first
	emptyEndpoints        list.List        // of *endpoint: all that stand so, the oldest first

	refused [stats.LimitCount]bool // something registered and found no room since the registry was last listed

	registeredCount, registeredOnNATS int // seats that are registered, and those of them that take requests over NATS

	poll             uint64 // number of the running or last poll
	pollTargets      int    // seats that polls wait for, unless reenrolled
	pollTargetsStale bool   // who is registered has changed since asked was counted
	pollExpected     int    // answers of registered workers that the running poll began with: one a worker and component
	pollAwaiting     int    // those of them that have not come
	answeringCount   int    // seats that have answered lately
	answeredCount    int    // those of them that have answered the poll
}

// worker is everything known of one worker process; deleting it deletes all its series.
// What each hit looks at stands first, in two cache lines.
type worker struct {
	id               WorkerID
	label            string // id as in the label worker_id
	attachments      []attachment
	hitsEndpoint     *endpoint // where its hits are shown; nil: on an endpoint that is not watched
	hits             Hits
	lastHit          time.Time
	unregisteredElem *list.Element // its places in the Fleet's queues of these names; nil where it is in none
	attachmentsElem  *list.Element
	timings          Timings

	unattributed          []rank   // from events that do not name the endpoint: see origin
	unattributedComponent string   // their component, if they named that
	pending               *pending // nil nearly always

	footprint   footprint
	loadLocated bool // a Snapshot works out: it is known where its load is, or that it has none
}

// seat is one worker at one endpoint. What each answer to a poll looks at stands first, in
// few cache lines: with ten thousand workers none of them is in a cache.
type attachment struct {
	endpoint          *endpoint
	registered        bool
	answered          bool    // answered a poll lately
	noLoad            bool    // its answers say that this endpoint carries no load
	reportedLoad      bool    // it has reported a load here in an answer
	malformed         bool    // its last answer could not be decoded
	stale             bool    // it publishes, used to answer polls too, and does no more: its load is not shown until it is heard
	pollTarget        bool    // polls wait for the component's answer, on one seat a component
	showsUnattributed bool    // a Snapshot works out: the worker's loads that name no endpoint are shown here
	hasLoad           bool    // and this: its load is here, or has been
	missedPolls       int     // polls since its last answer
	lastPoll          uint64  // the poll it last answered
	donePoll          uint64  // the poll that need not wait because of this seat any more
	service           string  // the NATS service name it answered under
	ranks             []rank  // by number
	earlierPasses     *passes // of processes that had the worker's id before; nil nearly always
	Registration
	card Opt[Card]

	keys           keySet[Registration] // of Registration
	processAddress string               // the address of the process whose load is shown; empty if it has none
	cardKeys       keySet[Card]         // of card
}

// New makes an empty Fleet that watches target and tracks at most limit workers.
// With registry false nobody registers workers, so every one that answers is shown.
func New(target Target, limit int, registry bool) *Fleet {
	f := &Fleet{
		target:      target,
		unknown:     Endpoint{Component: unknown, Name: unknown},
		workerLimit: limit,
		bounds:      newBounds(limit, registry),
		registry:    registry,
		synced:      make(chan struct{}),
		workers:     newIndex(),
		endpoints:   make(map[Endpoint]*endpoint),
		channels:    newChannels(),
	}
	f.Stats.Init()
	if target.MultipleNamespaces() {
		f.unknown.Namespace = unknown
	} else if target.Name != "" {
		f.addEndpoint(Endpoint(target), statusReserved).named = true
	}
	if !registry {
		close(f.synced)
	}
	return f
}

// Synced is closed when it is first known who is registered, or that nobody registers.
func (f *Fleet) Synced() <-chan struct{} { return f.synced }

// Target is what the Fleet watches.
func (f *Fleet) Target() Target { return f.target }

// Advance sets the Fleet's coarse clock and forgets what has expired. Ages and
// expiry are as exact as the steps in which its owner advances it.
func (f *Fleet) Advance(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
	if now.Sub(f.expiredAt) < time.Second {
		return
	}
	f.expiredAt = now
	f.expire()
	f.expireEndpoints()
}

func compareEndpoints(a, b Endpoint) int {
	return cmp.Or(strings.Compare(a.Component, b.Component), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
