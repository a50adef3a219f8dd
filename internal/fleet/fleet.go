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

// retention is how long the hit-rate counters of a worker that is neither registered nor
// answering are kept after its last event. An endpoint that has lost its last worker is
// shown for the same time, so that alerts can see the loss.
const retention = 10 * time.Minute

// maxAttachments is the largest number of endpoints of one worker.
const maxAttachments = 64

// maxMissedPolls is how many polls in a row a worker must miss for its load to be forgotten.
const maxMissedPolls = 2

// unknown is the name of the endpoint that counts the hit-rate events of unknown ids, unless
// the flags name one endpoint.
const unknown = "unknown"

// Target is what the program watches. An empty Component stands for all components, and an
// empty Name for all endpoints of the component. Namespace is empty if the program watches
// one namespace. If it watches several, Namespace is the prefix of their names and "*".
type Target Endpoint

// MultipleNamespaces reports whether several namespaces are watched. Each Endpoint has its
// Namespace then.
func (t Target) MultipleNamespaces() bool { return t.Namespace != "" }

// Covers reports whether e is watched. Names match exactly: "generate" never covers "generate2".
func (t Target) Covers(e Endpoint) bool {
	return t.CoversComponent(e.Component) && (t.Name == "" || t.Name == e.Name)
}

// CoversComponent reports whether endpoints of the component may be watched.
func (t Target) CoversComponent(component string) bool {
	return t.Component == "" || t.Component == component
}

// Fleet is the one state of the program. All methods are safe for concurrent use. None
// blocks, and none reads the clock.
type Fleet struct {
	Stats       stats.Stats
	Diagnostics Diagnostics

	target         Target
	unknown        Endpoint
	workerLimit    int
	bounds         bounds
	registry       bool
	synced         chan struct{} // closed when the registry has been read
	endpointsAdded atomic.Uint64

	snapshots sync.Pool // of *Snapshot that were released

	mu                      sync.Mutex
	now                     time.Time
	expiredAt               time.Time
	workers                 index
	unregisteredWorkers     lruQueue // the workers without any key in the registry, except static ones
	unregisteredAttachments lruQueue // the workers with attachments that have no key in the registry
	pendingWorkers          lruQueue // the workers with pending events; not in order of age
	footprint               footprint
	endpoints               map[Endpoint]*endpoint
	channels                channels
	loadCount               uint64 // loads received so far; rank.order is taken from it

	sorted                []*endpoint // valid unless unsorted is set
	unsorted              bool
	statusCounts          [numStatuses]int // endpoints with each status
	unregisteredEndpoints list.List        // of *endpoint with statusUnregistered that can be evicted, the oldest first
	emptyEndpoints        list.List        // of *endpoint with statusEmpty, the oldest first

	refused [stats.LimitCount]bool // a registered key was refused since the last Sync

	registeredCount, registeredOnNATS int // registered attachments, and those of them that receive requests over NATS

	poll             uint64 // number of the current or last poll
	pollTargets      int    // attachments with pollTarget set; valid unless pollTargetsStale is set
	pollTargetsStale bool   // registrations have changed since pollTargets was counted
	pollExpected     int    // replies that the current poll waited for at its start: one for each worker and component
	pollAwaiting     int    // those of them that are still missing
	answeringCount   int    // attachments with answered set
	answeredCount    int    // those of them that answered the current poll
}

// worker is everything that is known of one worker process. Deleting it deletes all its
// series. The fields that each hit uses come first and fit into two cache lines.
type worker struct {
	id               WorkerID
	label            string // id as in the label worker_id
	attachments      []attachment
	hitsEndpoint     *endpoint // the endpoint that shows its hits; nil if that is not watched
	hits             Hits
	lastHit          time.Time
	unregisteredElem *list.Element // its element in Fleet.unregisteredWorkers; nil if it has none
	attachmentsElem  *list.Element // its element in Fleet.unregisteredAttachments; nil if it has none
	timings          Timings

	unattributed          []rank   // of events that do not name the endpoint: see origin
	unattributedComponent string   // their component, if they name one
	pending               *pending // usually nil

	footprint   footprint
	loadLocated bool // set by locateLoads: the endpoint of its load is known, or it is a router, which has no load
}

// attachment is one worker at one endpoint. The fields that each poll reply uses come first,
// in few cache lines: with 10,000 workers every one of those lines is a cache miss.
type attachment struct {
	endpoint          *endpoint
	registered        bool
	answered          bool    // it answered one of the last polls
	noLoad            bool    // its replies say that this endpoint carries no load
	reportedLoad      bool    // it has reported a load in a reply for this endpoint
	malformed         bool    // its last reply could not be decoded
	stale             bool    // it publishes, and has stopped answering polls: its load is not shown until its next message
	pollTarget        bool    // polls wait for its reply; set on one attachment for each component
	showsUnattributed bool    // set by locateLoads: the worker's unattributed loads are shown here
	hasLoad           bool    // set by locateLoads: the worker's load is here, or was
	missedPolls       int     // polls since its last reply
	lastPoll          uint64  // the poll it last answered
	donePoll          uint64  // the last poll that no longer waits for this attachment
	service           string  // the NATS service name of its last reply
	ranks             []rank  // by number
	earlierPasses     *passes // of former processes with this worker's id; usually nil
	Registration
	card Opt[Card]

	keys           keySet[Registration] // the keys of Registration
	processAddress string               // Transport of the process whose load is shown; may be empty
	cardKeys       keySet[Card]         // the keys of card
}

// New returns an empty Fleet that watches target and tracks at most limit workers. If
// registry is false, workers do not register, and every worker that answers is shown.
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

// Synced returns a channel that is closed after the first Sync, or at once if there is no
// registry.
func (f *Fleet) Synced() <-chan struct{} { return f.synced }

// Target returns what the Fleet watches.
func (f *Fleet) Target() Target { return f.target }

// Advance sets the Fleet's coarse clock and deletes what has expired. Ages and expiry are
// as precise as the steps in which the caller advances the clock.
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
