package fleet

import (
	"slices"

	"dynamo-metrics/internal/stats"
)

// Role is what an endpoint is for, as far as its name says.
type Role int

const (
	// AnyRole is that of a worker's endpoint, unless something else says what it is.
	AnyRole Role = iota
	// LoadRole is that of the one endpoint of a worker that carries its load (to 0.5.1).
	LoadRole
	// RouterRole is that of an endpoint of a router, or of a frontend that routes: the process
	// is none of a worker, whatever else it registers.
	RouterRole
)

// Registration is what a worker's registration of an endpoint says of it and its release.
type Registration struct {
	Role Role
	// Publishes: its loads come as events (from 0.6 on), and if it answers polls
	// nevertheless, an answer without a load means nothing.
	Publishes bool
	// NATS: it takes requests over NATS.
	NATS bool
	// Transport is where it takes requests otherwise, host:port and what follows. With
	// Kubernetes discovery a restarted container keeps its id, and only this tells its
	// process from the one before.
	Transport string
	// Metrics is host:port of its own metrics page, where the registry says it
	// (Kubernetes discovery); empty if not.
	Metrics string
}

// more compares what two registrations of the same worker at the same endpoint say of it.
func (r Registration) compare(o Registration) int {
	switch {
	case r.Publishes == o.Publishes:
		return 0
	case r.Publishes:
		return 1
	}
	return -1
}

// Listing is what the registry holds at one moment, by its keys.
type Listing struct {
	Instances map[string]InstanceEntry
	Cards     map[string]CardEntry
	Channels  map[string]Channel
}

// InstanceEntry is a registration in a Listing.
type InstanceEntry struct {
	Instance
	Registration
}

// CardEntry is a model card in a Listing.
type CardEntry struct {
	Instance
	Card
}

// Register notes that a worker has registered an endpoint, under a key of the registry.
// There may be several, as where two layouts are written (0.6): one counts.
func (f *Fleet) Register(key string, in Instance, r Registration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.register(key, in, r)
}

func (f *Fleet) register(key string, in Instance, r Registration) {
	id := WorkerID{Lease: in.ID}
	a := f.ensureAttachment(id, in.Endpoint, byRegistry)
	if a == nil {
		return
	}
	w, before := f.workers.get(id), a.isListed()
	restarted := a.registered && a.hasOtherAddress(r.Transport)
	counts, room := a.keys.put(hashOf(key), r, a.Registration, Registration.compare)
	if !room {
		f.Stats.CountRefused(stats.AttachmentLimit)
		return
	}
	if restarted {
		w.replaceProcess(a)
	}
	if restarted || a.processAddress == "" {
		a.processAddress = r.Transport
	}
	f.countRegistered(a, -1)
	first := !a.registered
	a.registered, a.Registration, a.endpoint.hadWorker = true, counts, true
	f.countRegistered(a, 1)
	f.updateListed(w, a, before)
	if first {
		f.updateHitsEndpoint(w)
	}
}

// isElsewhere reports whether the keys of the registration say that it is reached at other
// addresses than this one. A key of a worker that is reached over NATS says no address.
func (a *attachment) hasOtherAddress(transport string) bool {
	elsewhere, here := false, transport == ""
	at := func(known string) {
		elsewhere = elsewhere || known != ""
		here = here || known == transport
	}
	at(a.Transport)
	if a.keys.others != nil {
		for _, o := range *a.keys.others {
			at(o.value.Transport)
		}
	}
	return elsewhere && !here
}

// restart follows a process that has taken over the worker's id, at an address of its own: a
// container that was started again, or another one that stood by. The load was that of the
// process before, while counters go on.
func (w *worker) replaceProcess(a *attachment) {
	for _, ranks := range [...][]rank{a.ranks, w.unattributed} {
		for i := range ranks {
			if p := ranks[i].passes; p != nil {
				if a.earlierPasses == nil {
					a.earlierPasses = &passes{seconds: stats.NewHistogram(stats.PassBounds)}
				}
				a.earlierPasses.add(p)
			}
		}
	}
	a.ranks, w.unattributed = nil, nil
}

// Deregister notes that a key of a worker's registration of an endpoint is gone. With the
// last one its load goes at once, and later answers bring nothing back until it registers
// again.
func (f *Fleet) Deregister(key string, in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.get(WorkerID{Lease: in.ID}); w != nil {
		f.retainRegistration(w, in.Endpoint, allExcept(key), false)
	}
}

// butOne is whether a key is any but this one.
func allExcept(key string) func(uint64) bool {
	gone := hashOf(key)
	return func(key uint64) bool { return key != gone }
}

// among is whether a key is one of these.
func oneOf(keys []uint64) func(uint64) bool {
	return func(key uint64) bool { return slices.Contains(keys, key) }
}

// keepRegistration forgets keys of a registration. It goes with the last one, unless it is
// known to have another that is yet to be told.
func (f *Fleet) retainRegistration(w *worker, e Endpoint, keeps func(key uint64) bool, expectMore bool) {
	a := w.attachmentAt(e)
	if a == nil || !a.registered {
		return
	}
	counts, some := a.keys.retain(keeps, a.Registration, Registration.compare)
	if !some && !expectMore {
		f.deregister(w, a)
		return
	}
	if counts != a.Registration {
		f.countRegistered(a, -1)
		a.Registration = counts
		f.countRegistered(a, 1)
	}
	if a.hasOtherAddress(a.processAddress) { // it has left, and the one before goes on
		w.replaceProcess(a)
		f.updateFootprint(w)
		a.processAddress = a.Transport
	}
}

// deregister follows the last key of a registration.
func (f *Fleet) deregister(w *worker, a *attachment) {
	if slices.ContainsFunc(w.ranksAt(a), func(r rank) bool { return r.load.OK || r.passes != nil }) {
		a.endpoint.hadData = true
	}
	if a == w.loadAttachment(w.unattributedComponent) {
		w.unattributed = nil
	}
	if a.card.OK { // it goes with its own key
		f.stopAwaiting(a)
		f.clearAnswered(a)
		f.countRegistered(a, -1)
		*a = attachment{endpoint: a.endpoint, card: a.card, cardKeys: a.cardKeys}
	} else {
		f.detach(w, a)
	}
	if !w.isRegistered() {
		w.unattributed = nil
	}
	f.unregisteredWorkers.setMember(w, &w.unregisteredElem, !w.isListed())
	f.updateFootprint(w)
	f.prune(w)
}

// Sync takes the whole registry at one moment: what is not in it is gone.
func (f *Fleet) Sync(all Listing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	instances, cards := make(map[Instance][]uint64, len(all.Instances)), make(map[Instance][]uint64, len(all.Cards))
	for key, e := range all.Instances {
		instances[e.Instance] = append(instances[e.Instance], hashOf(key))
	}
	for key, e := range all.Cards {
		cards[e.Instance] = append(cards[e.Instance], hashOf(key))
	}
	for _, w := range f.workers.leased {
		for _, e := range w.endpoints() {
			in := Instance{Endpoint: e, ID: w.id.Lease}
			f.retainRegistration(w, e, oneOf(instances[in]), len(instances[in]) > 0)
			f.retainCard(w, e, oneOf(cards[in]), len(cards[in]) > 0)
		}
	}
	f.refused = [stats.LimitCount]bool{}
	for key, e := range all.Instances {
		f.register(key, e.Instance, e.Registration)
	}
	for key, e := range all.Cards {
		f.setCard(key, e.Instance, e.Card)
	}
	f.syncChannels(all.Channels)
	if !f.IsSynced() {
		close(f.synced)
	}
}

// HasRegistry reports whether workers register anywhere.
func (f *Fleet) HasRegistry() bool { return f.registry }

// IsSynced reports whether it is known who is registered, or that nobody registers.
func (f *Fleet) IsSynced() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}

// WantsSync reports whether the registry should be listed anew: somebody found no
// room, or a channel did, and now there is some, or something to push out.
func (f *Fleet) NeedsSync() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hasRoomForRefusedChannel() || f.hasRoomForRefused()
}

// Registered lists the endpoints that workers have registered, sorted, watched or not.
func (f *Fleet) RegisteredEndpoints() []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sortEndpoints()
	all := []Endpoint{}
	for _, e := range f.sorted {
		if e.registeredCount > 0 {
			all = append(all, e.Endpoint)
		}
	}
	return all
}

// Headcount is how many workers have registered an endpoint.
type WorkerCount struct {
	Endpoint
	Workers int
}

// Census counts who has registered each endpoint, watched or not, sorted.
func (f *Fleet) WorkerCounts() []WorkerCount {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sortEndpoints()
	var all []WorkerCount
	for _, e := range f.sorted {
		if e.registeredCount > 0 {
			all = append(all, WorkerCount{e.Endpoint, e.registeredCount})
		}
	}
	return all
}

// Registrations lists the endpoints that one worker has registered.
func (f *Fleet) EndpointsOf(id uint64) []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.get(WorkerID{Lease: id}); w != nil {
		return w.registeredEndpoints()
	}
	return nil
}

// IsRegistered reports whether this worker has registered this endpoint.
func (f *Fleet) IsRegistered(in Instance) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.workers.get(WorkerID{Lease: in.ID}).attachmentAt(in.Endpoint)
	return a != nil && a.registered
}

// Openings is how often a registration was the only one of its endpoint: while it
// stays the same, Registered names no endpoint that it did not name before.
func (f *Fleet) EndpointsAdded() uint64 { return f.endpointsAdded.Load() }

// enrol counts a registered seat at its endpoint, once or once less.
func (f *Fleet) countRegistered(a *attachment, delta int) {
	if !a.registered {
		return
	}
	f.pollTargetsStale = true
	f.registeredCount += delta
	if a.NATS {
		f.registeredOnNATS += delta
	}
	a.endpoint.registeredCount += delta
	if delta > 0 && a.endpoint.registeredCount == 1 {
		f.endpointsAdded.Add(1)
	}
}

// registrations are the endpoints that the worker has registered.
func (w *worker) registeredEndpoints() []Endpoint {
	var es []Endpoint
	for i := range w.attachments {
		if w.attachments[i].registered {
			es = append(es, w.attachments[i].endpoint.Endpoint)
		}
	}
	return es
}

// isRouter reports whether the process is that of a router, or of a frontend that routes.
func (w *worker) isRouter() bool {
	for i := range w.attachments {
		if a := &w.attachments[i]; a.registered && a.Role == RouterRole {
			return true
		}
	}
	return false
}

func (w *worker) isRegistered() bool {
	for i := range w.attachments { // not by value: a seat is large
		if w.attachments[i].registered {
			return true
		}
	}
	return false
}
