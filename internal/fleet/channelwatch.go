package fleet

// mostChanges bounds the changes of channels that are kept for those who follow them. Who
// is further behind reads all channels again.
const maxLoggedChanges = 4096

// ChannelChange is what has become of the channel of one key. Without Old it is new, without
// New it is gone.
type ChannelChange struct{ Old, New Opt[Channel] }

// ChannelReader follows the channels. It belongs to one goroutine.
type ChannelWatch struct {
	fleet    *Fleet
	position uint64 // changes
	started  bool
}

// FollowChannels makes a reader of the channels.
func (f *Fleet) WatchChannels() *ChannelWatch { return &ChannelWatch{fleet: f} }

// Next are the changes since the last call, in their order, and a Go channel that is closed
// with the next one. For the first time, and where there were more than are kept, they are
// not changes of what the reader knows: all is true, and they are all channels.
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

// note logs a change, and tells those who wait for one.
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

// next is closed with the next change.
func (cs *channels) nextChange() <-chan struct{} {
	if cs.changed == nil {
		cs.changed = make(chan struct{})
	}
	return cs.changed
}
