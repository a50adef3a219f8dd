package fleet

import "slices"

// attachmentAt returns the worker's attachment to the endpoint named e, or nil. The worker may
// be nil.
func (w *worker) attachmentAt(e Endpoint) *attachment {
	if w == nil {
		return nil
	}
	for i := range w.attachments {
		if w.attachments[i].endpoint.Endpoint == e {
			return &w.attachments[i]
		}
	}
	return nil
}

// attachmentTo returns the worker's attachment to e, or nil.
func (w *worker) attachmentTo(e *endpoint) *attachment {
	for i := range w.attachments {
		if w.attachments[i].endpoint == e {
			return &w.attachments[i]
		}
	}
	return nil
}

// isListed reports whether the registry has an instance key or a model card of the worker at
// this endpoint.
func (a *attachment) isListed() bool { return a.registered || a.card.OK }

// isListed reports whether the registry has any key of the worker.
func (w *worker) isListed() bool {
	for i := range w.attachments {
		if w.attachments[i].isListed() {
			return true
		}
	}
	return false
}

// ensureWorker returns the worker with the id and adds it if necessary. It returns nil if
// there is no room.
func (f *Fleet) ensureWorker(id WorkerID, by evidence) *worker {
	if w := f.workers.get(id); w != nil {
		return w
	}
	if !f.roomForWorker(id, by) {
		return nil
	}
	w := &worker{id: id, label: id.String()}
	f.workers.add(w)
	f.unregisteredWorkers.setMember(w, &w.unregisteredElem, !id.IsStatic())
	return w
}

// ensureAttachment returns the worker's attachment to e and adds it if necessary. It returns
// nil if there is no room. A new attachment takes over the worker's pending events for e.
func (f *Fleet) ensureAttachment(id WorkerID, e Endpoint, by evidence) *attachment {
	if a := f.workers.get(id).attachmentAt(e); a != nil {
		return a
	}
	w := f.ensureWorker(id, by)
	if w == nil {
		return nil
	}
	p := (*endpoint)(nil)
	if f.roomForAttachment(w, by) {
		p = f.ensureEndpoint(e, by, w)
	}
	if p == nil {
		f.dropIfEmpty(w)
		return nil
	}
	w.attachments = append(w.attachments, attachment{endpoint: p})
	a := &w.attachments[len(w.attachments)-1]
	if w.id.IsStatic() {
		p.staticCount++
	}
	f.addMember(p, w)
	if w.pending != nil && w.pending.endpoint == e {
		a.ranks = w.pending.ranks
		f.removePending(w)
	}
	f.updateFootprint(w)
	return a
}

// updateListed must be called after each change of the attachment's keys. Before is what
// isListed reported before the change.
func (f *Fleet) updateListed(w *worker, a *attachment, before bool) {
	switch now := a.isListed(); {
	case now && !before:
		a.endpoint.listedCount++
		f.updateStatus(a.endpoint)
	case before && !now:
		a.endpoint.listedCount--
		f.updateStatus(a.endpoint)
	}
	f.unregisteredWorkers.setMember(w, &w.unregisteredElem, !w.id.IsStatic() && !w.isListed())
	f.updateFootprint(w)
	f.trim(w, a)
}

// detach deletes the attachment from the worker, and keeps everything else that is known of the
// worker.
func (f *Fleet) detach(w *worker, a *attachment) {
	f.stopAwaiting(a)
	f.clearAnswered(a)
	f.countRegistered(a, -1)
	e := a.endpoint
	if a.isListed() {
		e.listedCount--
	}
	if w.id.IsStatic() {
		e.staticCount--
	}
	i := slices.IndexFunc(w.attachments, func(other attachment) bool { return other.endpoint == e })
	w.attachments = slices.Delete(w.attachments, i, i+1)
	f.removeMember(e, w)
}

// prune must be called after each removal of an attachment. It deletes the worker if nothing
// else is known of it. Otherwise it decides again which endpoint shows the worker's hits.
func (f *Fleet) prune(w *worker) {
	if !f.dropIfEmpty(w) {
		f.updateHitsEndpoint(w)
	}
}

// dropIfEmpty deletes a worker without attachments, hits and pending events.
func (f *Fleet) dropIfEmpty(w *worker) bool {
	empty := len(w.attachments) == 0 && len(w.unattributed) == 0 && w.pending == nil && (w.hits.Events == 0 || w.hitsEndpoint == nil)
	if empty {
		f.drop(w)
	}
	return empty
}

// drop deletes the worker.
func (f *Fleet) drop(w *worker) {
	for len(w.attachments) > 0 {
		f.detach(w, &w.attachments[len(w.attachments)-1])
	}
	w.unattributed = nil
	f.removePending(w)
	f.setHitsEndpoint(w, nil)
	f.setFootprint(w, footprint{})
	f.unregisteredAttachments.setMember(w, &w.attachmentsElem, false)
	f.unregisteredWorkers.setMember(w, &w.unregisteredElem, false)
	f.workers.remove(w)
}
