package fleet

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/stats"
)

// Notes are what the program has found wrong that numbers cannot say: names and
// addresses, for those who tell people. The zero Notes are empty.
type Diagnostics struct {
	mu              sync.Mutex
	planeMismatches map[string]string
	unreachable     map[Channel]time.Time
	gaps            []Gap
	failedScrapes   map[Instance]FailedScrapes

	subjects []Subject
}

// Subject is one that the program subscribes to at NATS, or publishes on, and that a server
// may refuse.
type Subject struct {
	Name     string // with wildcards; where it is told by what follows, as of an inbox, without that
	Required bool   // else it is of what not every fleet sends
	Refused  bool
}

// SetSubjects notes what is known of all subjects; none while NATS is not connected.
func (d *Diagnostics) SetSubjects(all []Subject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subjects = all
}

// Subjects are those of which it is known whether they are refused. They must not be changed.
func (d *Diagnostics) Subjects() []Subject {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.subjects
}

// Refused are the subjects that are refused, of those that are required or of the others.
func (d *Diagnostics) RefusedSubjects(required bool) (names []string) {
	for _, s := range d.Subjects() {
		if s.Refused && s.Required == required {
			names = append(names, s.Name)
		}
	}
	return names
}

// Gap is a run of events of one publisher that never came.
type Gap struct {
	Publisher     uint64 // as in its envelopes: to 1.3 the worker's id, later a random one
	Kind          stats.Kind
	After, Before uint64 // the numbers of those that came
	At            time.Time
}

// lastGaps is how many of them are kept.
const maxGaps = 8

// Missed notes a gap; the oldest goes for it.
func (d *Diagnostics) AddGap(g Gap) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.gaps) == maxGaps {
		d.gaps = slices.Delete(d.gaps, 0, 1)
	}
	d.gaps = append(d.gaps, g)
}

// Gaps are the last ones, the newest last.
func (d *Diagnostics) Gaps() []Gap {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.gaps)
}

// Away notes since when a ZMQ publisher or broker that should be subscribed to cannot be.
func (d *Diagnostics) SetUnreachable(c Channel, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unreachable == nil {
		d.unreachable = make(map[Channel]time.Time)
	}
	d.unreachable[c] = since
}

// Back notes that it can be, or need not be any more.
func (d *Diagnostics) ClearUnreachable(c Channel) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.unreachable, c)
}

// AwaySince are those that have been away since before a moment, by address.
func (d *Diagnostics) UnreachableSince(before time.Time) []Channel {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Channel
	for c, since := range d.unreachable {
		if since.Before(before) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b Channel) int {
		if c := strings.Compare(a.Address, b.Address); c != 0 {
			return c
		}
		return strings.Compare(a.Topic, b.Topic)
	})
	return all
}

// SetClashes notes the components whose workers are on another event plane than their
// routers, and the planes of both in words.
func (d *Diagnostics) SetPlaneMismatches(byComponent map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.planeMismatches = byComponent
}

// Clashes are the reader's own.
func (d *Diagnostics) PlaneMismatches() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.planeMismatches)
}
