package fleet

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// retention is how long hit-rate counters outlive the last event of a worker
// that is neither registered nor answering, and how long an endpoint that has
// lost its last worker is still shown, so that alerts can see the loss.
const retention = 10 * time.Minute

// missesToForget is how many polls in a row a worker may miss before its load is forgotten.
const missesToForget = 2

// Unknown is where hit-rate events of ids nobody knows are booked when the
// program was not told one endpoint to watch.
var Unknown = Endpoint{Component: "unknown", Name: "unknown"}

// Target is what the program watches in its namespace. An empty Component means
// all of them, an empty Name all endpoints of the component.
type Target Endpoint

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
	Tally Tally

	target   Target
	limit    int
	registry bool
	synced   chan struct{} // closed when it is known who is registered

	mu        sync.Mutex
	now       time.Time
	swept     time.Time
	workers   map[WorkerID]*worker
	strangers map[WorkerID]*worker // those of workers that are not registered
	endpoints map[Endpoint]*endpoint
	tracked   int // seats, and workers without one
	statics   int // static workers

	poll     uint64 // number of the running or last poll
	expected int    // registered workers when it began
	awaiting int    // those of them that have not answered it
}

// worker is everything known of one worker process; deleting it deletes all its series.
type worker struct {
	id       WorkerID
	label    string // id as in the label worker_id
	seats    []seat
	home     *endpoint // where its hits are shown; nil: on an endpoint that is not watched
	hits     Hits
	lastHit  time.Time
	awaited  uint64 // the poll that waits for its answer
	stranger bool
}

// seat is one worker at one endpoint.
type seat struct {
	endpoint   *endpoint
	registered bool
	answered   bool   // answered a poll lately
	noLoad     bool   // its answers say that this endpoint carries no load
	carried    bool   // it has reported a load here
	malformed  bool   // its last answer could not be decoded
	missed     int    // polls since its last answer
	poll       uint64 // the poll it last answered
	service    string // the NATS service name it answered under
	load       Opt[Load]
	loadAt     time.Time
}

// endpoint is one endpoint somebody is or was at.
type endpoint struct {
	Endpoint
	watched  bool
	named    bool   // by the flags: shown even if nobody was ever there
	useful   bool   // had a load or a hit
	refs     int    // seats here and workers whose home it is
	events   uint64 // hit-rate events booked here
	lastSeen time.Time
}

// New makes an empty Fleet that watches target and tracks at most limit workers
// (an endpoint and a worker there count as one). With registry false nobody
// registers workers, so every one that answers is shown.
func New(target Target, limit int, registry bool) *Fleet {
	f := &Fleet{
		target:    target,
		limit:     limit,
		registry:  registry,
		synced:    make(chan struct{}),
		workers:   make(map[WorkerID]*worker),
		strangers: make(map[WorkerID]*worker),
		endpoints: make(map[Endpoint]*endpoint),
	}
	if target.Name != "" {
		f.endpoint(Endpoint(target)).named = true
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
	if now.Sub(f.swept) < time.Second {
		return
	}
	f.swept = now
	for _, w := range f.strangers {
		if len(w.seats) == 0 && now.Sub(w.lastHit) >= retention {
			f.drop(w)
		}
	}
	for key, e := range f.endpoints {
		if e.refs == 0 && !e.named && now.Sub(e.lastSeen) >= retention {
			delete(f.endpoints, key)
		}
	}
}

// Register notes that a worker has registered an endpoint.
func (f *Fleet) Register(in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.register(in)
}

func (f *Fleet) register(in Instance) {
	id := WorkerID{Lease: in.ID}
	if s := f.workers[id].at(in.Endpoint); s != nil && s.registered {
		return
	}
	s := f.seat(id, in.Endpoint, true)
	if s == nil {
		return
	}
	s.registered = true
	w := f.workers[id]
	f.setStranger(w, false)
	f.rehome(w)
}

// Deregister notes that a worker's registration of an endpoint is gone. Its load
// goes at once, and later answers bring nothing back until it registers again.
func (f *Fleet) Deregister(in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers[WorkerID{Lease: in.ID}]; w != nil {
		f.deregister(w, in.Endpoint)
	}
}

func (f *Fleet) deregister(w *worker, e Endpoint) {
	s := w.at(e)
	if s == nil || !s.registered {
		return
	}
	f.leave(w, s)
	if !f.watchedRegistered(w) {
		f.answer(w)
	}
	if !w.registered() {
		f.setStranger(w, true)
	}
	f.settle(w)
}

// Sync takes the whole registry at one moment: who is not in it is gone.
func (f *Fleet) Sync(all []Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	present := make(map[Instance]bool, len(all))
	for _, in := range all {
		present[in] = true
	}
	for _, w := range f.workers {
		for _, e := range w.registrations() {
			if !present[Instance{Endpoint: e, ID: w.id.Lease}] {
				f.deregister(w, e)
			}
		}
	}
	for _, in := range all {
		f.register(in)
	}
	select {
	case <-f.synced:
	default:
		close(f.synced)
	}
}

// Registered lists the endpoints that workers have registered, sorted, watched or not.
func (f *Fleet) Registered() []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := make(map[Endpoint]bool)
	for _, w := range f.workers {
		for _, e := range w.registrations() {
			set[e] = true
		}
	}
	all := make([]Endpoint, 0, len(set))
	for e := range set {
		all = append(all, e)
	}
	slices.SortFunc(all, compareEndpoints)
	return all
}

// IsRegistered reports whether this worker has registered this endpoint.
func (f *Fleet) IsRegistered(in Instance) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.workers[WorkerID{Lease: in.ID}].at(in.Endpoint)
	return s != nil && s.registered
}

func compareEndpoints(a, b Endpoint) int {
	if c := strings.Compare(a.Component, b.Component); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// at is the worker's seat at e, nil if it has none.
func (w *worker) at(e Endpoint) *seat {
	if w == nil {
		return nil
	}
	for i := range w.seats {
		if w.seats[i].endpoint.Endpoint == e {
			return &w.seats[i]
		}
	}
	return nil
}

// registrations are the endpoints that the worker has registered.
func (w *worker) registrations() []Endpoint {
	var es []Endpoint
	for i := range w.seats {
		if w.seats[i].registered {
			es = append(es, w.seats[i].endpoint.Endpoint)
		}
	}
	return es
}

func (w *worker) registered() bool {
	return slices.ContainsFunc(w.seats, func(s seat) bool { return s.registered })
}

// watchedRegistered reports whether polls wait for the worker: a component's
// workers answer for all of their endpoints at once.
func (f *Fleet) watchedRegistered(w *worker) bool {
	return slices.ContainsFunc(w.seats, func(s seat) bool {
		return s.registered && f.target.CoversComponent(s.endpoint.Component)
	})
}

// endpoint is the record of e, made if there is none.
func (f *Fleet) endpoint(e Endpoint) *endpoint {
	p := f.endpoints[e]
	if p == nil {
		p = &endpoint{Endpoint: e, watched: f.target.Covers(e)}
		f.endpoints[e] = p
	}
	return p
}

// release drops one reference to e. An endpoint that never had anything to show goes with it.
func (f *Fleet) release(e *endpoint) {
	e.refs--
	e.lastSeen = f.now
	if e.refs == 0 && !e.named && !e.useful {
		delete(f.endpoints, e.Endpoint)
	}
}

// worker is the record of id, made if there is room; nil if there is none.
func (f *Fleet) worker(id WorkerID, registering bool) *worker {
	if w := f.workers[id]; w != nil {
		return w
	}
	if !f.room(registering, nil) {
		return nil
	}
	w := &worker{id: id, label: id.String(), stranger: true}
	f.workers[id] = w
	f.strangers[id] = w
	f.tracked++
	if id.IsStatic() {
		f.statics++
	}
	return w
}

// room reports whether one more can be tracked. What registers, for whom or for
// another endpoint of whom, pushes out an id that nobody has registered. Whatever
// is turned away or pushed out is counted.
func (f *Fleet) room(registering bool, whom *worker) bool {
	if f.tracked < f.limit {
		return true
	}
	f.Tally.OverLimit.Add(1)
	if !registering {
		return false
	}
	for _, w := range f.strangers {
		if w != whom && !w.id.IsStatic() {
			f.drop(w)
			return true
		}
	}
	return false
}

// seat is the worker's seat at e, made if there is room; nil if there is none.
func (f *Fleet) seat(id WorkerID, e Endpoint, registering bool) *seat {
	w := f.worker(id, registering)
	if w == nil {
		return nil
	}
	if s := w.at(e); s != nil {
		return s
	}
	if len(w.seats) > 0 {
		if !f.room(registering, w) {
			return nil
		}
		f.tracked++
	}
	p := f.endpoint(e)
	p.refs++
	w.seats = append(w.seats, seat{endpoint: p})
	return &w.seats[len(w.seats)-1]
}

// leave takes the worker from its seat; what else is known of it stays.
func (f *Fleet) leave(w *worker, s *seat) {
	f.release(s.endpoint)
	i := slices.IndexFunc(w.seats, func(o seat) bool { return o.endpoint == s.endpoint })
	w.seats = slices.Delete(w.seats, i, i+1)
	if len(w.seats) > 0 {
		f.tracked--
	}
}

// settle follows a change of the worker's seats: its hits may move, and a worker
// with neither seats nor hits is forgotten.
func (f *Fleet) settle(w *worker) {
	if len(w.seats) == 0 && (w.hits.Events == 0 || w.home == nil) {
		f.drop(w)
		return
	}
	f.rehome(w)
}

// drop forgets everything about the worker.
func (f *Fleet) drop(w *worker) {
	for i := range w.seats {
		f.release(w.seats[i].endpoint)
	}
	f.tracked -= max(1, len(w.seats))
	w.seats = nil
	f.setHome(w, nil)
	delete(f.workers, w.id)
	delete(f.strangers, w.id)
	if w.id.IsStatic() {
		f.statics--
	}
}

func (f *Fleet) setStranger(w *worker, stranger bool) {
	if w.stranger == stranger {
		return
	}
	w.stranger = stranger
	if stranger {
		f.strangers[w.id] = w
	} else {
		delete(f.strangers, w.id)
	}
}
