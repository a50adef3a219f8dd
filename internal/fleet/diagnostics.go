package fleet

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/stats"
)

// Diagnostics has the details of problems that metrics cannot express, such as names and
// addresses. The zero Diagnostics is empty.
type Diagnostics struct {
	mu              sync.Mutex
	planeMismatches map[string]string
	unreachable     map[Channel]time.Time
	gaps            []Gap
	failedScrapes   map[Instance]FailedScrapes

	subjects []Subject
}

// Subject is a NATS subject that the program subscribes to or publishes on, and that the
// server may deny.
type Subject struct {
	Name     string // with wildcards; of an inbox without the random part
	Required bool   // if false, not every fleet uses the subject
	Refused  bool   // the server denies it
}

// SetSubjects replaces the subjects. There are none while NATS is not connected.
func (d *Diagnostics) SetSubjects(all []Subject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subjects = all
}

// Subjects returns the subjects. The caller must not change them.
func (d *Diagnostics) Subjects() []Subject {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.subjects
}

// RefusedSubjects returns the names of the subjects that the server denies, either the required
// ones or the others.
func (d *Diagnostics) RefusedSubjects(required bool) (names []string) {
	for _, s := range d.Subjects() {
		if s.Refused && s.Required == required {
			names = append(names, s.Name)
		}
	}
	return names
}

// Gap is a run of events of one publisher that were not received.
type Gap struct {
	Publisher     uint64 // publisher id in the event envelopes: up to 1.3 the worker's id, later a random id
	Kind          stats.Kind
	After, Before uint64 // the sequence numbers of the events around the gap
	At            time.Time
}

// maxGaps is the number of gaps that are kept.
const maxGaps = 8

// AddGap adds a gap, and removes the oldest one if there are too many.
func (d *Diagnostics) AddGap(g Gap) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.gaps) == maxGaps {
		d.gaps = slices.Delete(d.gaps, 0, 1)
	}
	d.gaps = append(d.gaps, g)
}

// Gaps returns the last gaps, the newest one last.
func (d *Diagnostics) Gaps() []Gap {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.gaps)
}

// SetUnreachable records that a ZMQ publisher or broker has been unreachable since a time.
func (d *Diagnostics) SetUnreachable(c Channel, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unreachable == nil {
		d.unreachable = make(map[Channel]time.Time)
	}
	d.unreachable[c] = since
}

// ClearUnreachable records that a ZMQ publisher or broker is reachable, or no longer needed.
func (d *Diagnostics) ClearUnreachable(c Channel) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.unreachable, c)
}

// UnreachableSince returns the ZMQ publishers and brokers that became unreachable before a
// time, sorted by address.
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

// SetPlaneMismatches replaces the components whose workers use another event plane than their
// routers. The values describe the difference.
func (d *Diagnostics) SetPlaneMismatches(byComponent map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.planeMismatches = byComponent
}

// PlaneMismatches returns a copy of what SetPlaneMismatches stored.
func (d *Diagnostics) PlaneMismatches() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.planeMismatches)
}
