package fleet

import (
	"slices"

	"dynamo-metrics/internal/stats"
)

// Role is the purpose of an endpoint, as far as its name shows it.
type Role int

const (
	// AnyRole is the role of all endpoints that have none of the following.
	AnyRole Role = iota
	// LoadRole is the role of the one endpoint of a worker that carries its load (up to 0.5.1).
	LoadRole
	// RouterRole is the role of an endpoint of a router, or of a frontend that routes. Its
	// process is not a worker, whatever else it registers.
	RouterRole
)

// Registration is what an instance key says about a worker and its release.
type Registration struct {
	Role Role
	// Publishes means that the worker publishes its load as events (since 0.6). If it answers
	// polls as well, a reply without a load means nothing.
	Publishes bool
	// NATS means that the worker receives requests over NATS.
	NATS bool
	// Transport is the address of a worker that receives requests otherwise: host:port and
	// a suffix. With Kubernetes discovery a restarted container keeps its id, and only
	// Transport distinguishes its new process from the old one.
	Transport string
	// Metrics is host:port of the worker's own metrics endpoint. It is empty unless the
	// registry has it (Kubernetes discovery).
	Metrics string
}

// compare returns 1 if r says more about the worker than o, another registration of it at the
// same endpoint, -1 if it says less, and 0 if both say the same amount.
func (r Registration) compare(o Registration) int {
	switch {
	case r.Publishes == o.Publishes:
		return 0
	case r.Publishes:
		return 1
	}
	return -1
}

// Listing is the content of the registry at one moment, by key.
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

// Register records that a key of the registry registers a worker at an endpoint. A worker may
// have several such keys, for example because 0.6 writes keys in two layouts. One of them counts.
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

// hasOtherAddress reports whether the registration's keys have addresses, and none of them is
// this one. The key of a worker that receives requests over NATS has no address.
func (a *attachment) hasOtherAddress(transport string) bool {
	elsewhere, here := false, transport == ""
	consider := func(known string) {
		elsewhere = elsewhere || known != ""
		here = here || known == transport
	}
	consider(a.Transport)
	if a.keys.others != nil {
		for _, o := range *a.keys.others {
			consider(o.value.Transport)
		}
	}
	return elsewhere && !here
}

// replaceProcess records that another process at another address has taken over the worker's
// id: a restarted container, or a standby. It deletes the load of the former process and
// keeps its counters.
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

// Deregister records that a key is deleted that registered a worker at an endpoint. With the
// last such key, the Fleet deletes the worker's load there. Later replies do not bring the worker
// back until it registers again.
func (f *Fleet) Deregister(key string, in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.get(WorkerID{Lease: in.ID}); w != nil {
		f.retainRegistration(w, in.Endpoint, allExcept(key), false)
	}
}

// allExcept returns a function that accepts every key except this one.
func allExcept(key string) func(uint64) bool {
	gone := hashOf(key)
	return func(key uint64) bool { return key != gone }
}

// oneOf returns a function that accepts these keys.
func oneOf(keys []uint64) func(uint64) bool {
	return func(key uint64) bool { return slices.Contains(keys, key) }
}

// retainRegistration keeps only the accepted keys of a registration. If none is left, it
// deletes the registration, unless expectMore says that another key is about to be added.
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
	if a.hasOtherAddress(a.processAddress) { // the process whose load is shown has left, and another one with the same id continues
		w.replaceProcess(a)
		f.updateFootprint(w)
		a.processAddress = a.Transport
	}
}

// deregister deletes a registration whose last key is deleted.
func (f *Fleet) deregister(w *worker, a *attachment) {
	if slices.ContainsFunc(w.ranksAt(a), func(r rank) bool { return r.load.OK || r.passes != nil }) {
		a.endpoint.hadData = true
	}
	if a == w.loadAttachment(w.unattributedComponent) {
		w.unattributed = nil
	}
	if a.card.OK { // the card stays until its own key is deleted
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

// Sync replaces everything that is known from the registry with its content at one moment.
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

// HasRegistry reports whether there is a registry that workers register with.
func (f *Fleet) HasRegistry() bool { return f.registry }

// IsSynced reports whether the channel of Synced is closed.
func (f *Fleet) IsSynced() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}

// NeedsSync reports whether the registry should be listed again, because there was no room
// for a registered worker or a channel, and now there is room, or something to evict.
func (f *Fleet) NeedsSync() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hasRoomForRefusedChannel() || f.hasRoomForRefused()
}

// RegisteredEndpoints returns the endpoints with registered workers, sorted. They include
// those that are not watched.
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

// WorkerCount is the number of workers that have registered an endpoint.
type WorkerCount struct {
	Endpoint
	Workers int
}

// WorkerCounts returns the number of registered workers at each endpoint, sorted by
// endpoint. The endpoints include those that are not watched.
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

// EndpointsOf returns the endpoints that one worker has registered.
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

// EndpointsAdded returns how often a worker was the first to register an endpoint. While it
// stays the same, RegisteredEndpoints returns no new endpoint.
func (f *Fleet) EndpointsAdded() uint64 { return f.endpointsAdded.Load() }

// countRegistered adds delta (1 or -1) to the counts of registered attachments, if the
// attachment is registered.
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

// registeredEndpoints returns the endpoints that the worker has registered.
func (w *worker) registeredEndpoints() []Endpoint {
	var es []Endpoint
	for i := range w.attachments {
		if w.attachments[i].registered {
			es = append(es, w.attachments[i].endpoint.Endpoint)
		}
	}
	return es
}

// isRouter reports whether the process is a router, or a frontend that routes.
func (w *worker) isRouter() bool {
	for i := range w.attachments {
		if a := &w.attachments[i]; a.registered && a.Role == RouterRole {
			return true
		}
	}
	return false
}

func (w *worker) isRegistered() bool {
	for i := range w.attachments { // not by value: an attachment is large
		if w.attachments[i].registered {
			return true
		}
	}
	return false
}
