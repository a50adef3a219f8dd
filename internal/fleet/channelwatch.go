package fleet

// maxLoggedChanges is the number of changes that are kept for ChannelWatch. A watcher that is
// further behind reads all channels again.
const maxLoggedChanges = 4096

// ChannelChange is a change of the channel of one key. Old is absent for an added channel, and
// New is absent for a removed one.
type ChannelChange struct{ Old, New Opt[Channel] }

// ChannelWatch reads the changes of the channels. It is for use by one goroutine.
type ChannelWatch struct {
	fleet    *Fleet
	position uint64 // number of changes read so far
	started  bool
}

// WatchChannels returns a new ChannelWatch.
func (f *Fleet) WatchChannels() *ChannelWatch { return &ChannelWatch{fleet: f} }

// Changes returns the changes since the last call in their order, and a Go channel that is
// closed at the next change. In the first call, and after more changes than are kept, all is
// true, and changes has every channel as an added one.
func (w *ChannelWatch) Changes() (changes []ChannelChange, all bool, more <-chan struct{}) {
	f := w.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	cs := &f.channels
	all = !w.started || cs.logged-w.position > uint64(len(cs.log))
	if all {
		for _, c := range cs.byKey {
			changes = append(changes, ChannelChange{New: Some(c.export())})
		}
	} else {
		for ; w.position < cs.logged; w.position++ {
			changes = append(changes, cs.log[w.position%maxLoggedChanges])
		}
	}
	w.started, w.position = true, cs.logged
	return changes, all, cs.nextChange()
}

// logChange appends a change to the log and wakes up the watchers that wait for one.
func (cs *channels) logChange(c ChannelChange) {
	if at := cs.logged % maxLoggedChanges; at < uint64(len(cs.log)) {
		cs.log[at] = c
	} else {
		cs.log = append(cs.log, c)
	}
	cs.logged++
	if cs.changed != nil {
		close(cs.changed)
		cs.changed = nil
	}
}

// nextChange returns a Go channel that is closed at the next change.
func (cs *channels) nextChange() <-chan struct{} {
	if cs.changed == nil {
		cs.changed = make(chan struct{})
	}
	return cs.changed
}
