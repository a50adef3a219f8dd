package fleet

// RegistrationOf returns the registration that a key of the registry holds for a worker at an
// endpoint. It returns false if the key was not accepted.
func (f *Fleet) RegistrationOf(key string, in Instance) (Registration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.workers.get(WorkerID{Lease: in.ID}).attachmentAt(in.Endpoint); a != nil && a.registered {
		return a.keys.get(hashOf(key), a.Registration)
	}
	return Registration{}, false
}

// CardOf returns the model card that a key of the registry holds for a worker at an endpoint. It
// returns false if the key was not accepted.
func (f *Fleet) CardOf(key string, in Instance) (Card, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.workers.get(WorkerID{Lease: in.ID}).attachmentAt(in.Endpoint); a != nil && a.card.OK {
		return a.cardKeys.get(hashOf(key), a.card.V)
	}
	return Card{}, false
}

// ChannelAt returns the channel that a key of the registry holds. It returns false if the key
// was not accepted.
func (f *Fleet) ChannelAt(key string) (Channel, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, known := f.channels.byKey[key]; known {
		return c.export(), true
	}
	return Channel{}, false
}
