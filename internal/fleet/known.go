package fleet

// RegistrationOf is what a worker's registration of an endpoint says, if it is registered.
func (f *Fleet) RegistrationOf(in Instance) (Registration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.workers.of(WorkerID{Lease: in.ID}).at(in.Endpoint); s != nil && s.registered {
		return s.Registration, true
	}
	return Registration{}, false
}

// CardOf is the model card of a worker at an endpoint, if it has one.
func (f *Fleet) CardOf(in Instance) (Card, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.workers.of(WorkerID{Lease: in.ID}).at(in.Endpoint); s != nil {
		return s.card.V, s.card.OK
	}
	return Card{}, false
}

// ChannelAt is the channel that was announced by a key, if there is one.
func (f *Fleet) ChannelAt(key string) (Channel, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, known := f.channels[key]
	return c, known
}
