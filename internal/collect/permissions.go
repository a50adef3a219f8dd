package collect

import (
	"log/slog"
	"strings"
	"sync"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// Access is what NATS lets the program do: which of the subjects that it uses are refused.
// Those that are required make the difference between connected and deaf. The others are of
// what not every fleet sends, so that an installation with the permissions of an earlier
// release is not worse off for a program that reads more. A nil Access knows of nothing.
type Permissions struct {
	fleet       *fleet.Fleet
	log         *slog.Logger
	reconnected chan struct{} // of one place: says that there is a new connection

	mu        sync.Mutex
	all       []*permission
	connected bool
	confirmed bool   // the server has answered behind the subscriptions
	up        bool   // as it was last told
	onUp      func() // called when it is so; may be nil
}

// grant is whether a subject may be used.
type permission struct {
	fleet.Subject
	publishes bool // on it; else it is subscribed to
	known     bool // Refused says so
	pending   bool // the server was asked, and its answer is not known
	denied    bool // it has said no
}

const (
	inboxSubjects = "_INBOX.dynamo-metrics.>"
	statsSubject  = "$SRV.STATS.*"
)

// newAccess is that of all subjects of these namespaces.
func newPermissions(f *fleet.Fleet, namespaces wire.Namespaces, log *slog.Logger) *Permissions {
	a := &Permissions{fleet: f, log: log, reconnected: make(chan struct{}, 1)}
	add := func(required, publishes bool, subjects ...string) {
		for _, s := range subjects {
			a.all = append(a.all, &permission{Subject: fleet.Subject{Name: s, Required: required}, publishes: publishes})
		}
	}
	add(true, false, wire.EventSubjects(namespaces, wire.TopicHitRate)[0])
	add(true, false, wire.EventSubjects(namespaces, wire.TopicLoad)...)
	add(true, false, inboxSubjects)
	add(true, true, statsSubject)
	add(false, false, wire.EventSubjects(namespaces, wire.TopicForwardPass)...)
	add(false, false, wire.TraceSubject)
	add(false, true, wire.L2CSubjects(namespaces))
	return a
}

// OnUp has f called whenever NATS is connected and refuses nothing that is required.
func (a *Permissions) OnUp(f func()) { a.onUp = f }

// Connected hears each change of the connection. A new one has all subscriptions again.
func (a *Permissions) SetConnected(up bool) {
	a.update(func() {
		a.connected, a.confirmed = up, false
		for _, g := range a.all {
			g.pending, g.denied = up && !g.publishes, false
			g.known = g.known && g.publishes // that is heard of with the next use only
		}
	})
	if up {
		select {
		case a.reconnected <- struct{}{}:
		default:
		}
	}
}

// confirm notes that the server has answered behind all subscriptions.
func (a *Permissions) confirm() {
	a.update(func() {
		a.confirmed = true
		for _, g := range a.all {
			if !g.publishes {
				a.confirmPermission(g)
			}
		}
	})
}

func (a *Permissions) isConfirmed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.confirmed
}

// Refused hears of a subject that the server refuses; without a name, of one of those that it
// was asked for, or of any. It reports whether it is one of these, and whether that is news.
func (a *Permissions) RecordDenial(subject string, publishing bool) (known, isNew bool) {
	a.fleet.Stats.CountFailure(stats.PeerNATS)
	a.update(func() {
		if subject == "" {
			a.denyUnnamed()
			known = true
			return
		}
		for _, g := range a.all {
			if g.publishes == publishing && g.covers(subject) {
				known = true
				isNew = a.markDenied(g)
				return
			}
		}
	})
	return known, isNew
}

// doubt takes for refused what was asked for, or else every subscription.
func (a *Permissions) denyUnnamed() {
	asked := false
	for _, g := range a.all {
		if g.pending && !g.publishes {
			asked = true
			a.markDenied(g)
		}
	}
	for _, g := range a.all {
		if !asked && !g.publishes {
			a.markDenied(g)
		}
	}
}

// deny reports whether it is news.
func (a *Permissions) markDenied(g *permission) bool {
	isNew := !g.Subject.Refused
	g.denied, g.known, g.Subject.Refused = true, true, true
	return isNew
}

// Ask notes that a subject is about to be used.
func (a *Permissions) BeginUse(name string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if g := a.find(name); g != nil {
		g.pending, g.denied = true, false
	}
}

// Settle notes that the server has answered behind the use of a subject.
func (a *Permissions) ConfirmUse(name string) {
	if a == nil {
		return
	}
	a.update(func() {
		if g := a.find(name); g != nil {
			a.confirmPermission(g)
		}
	})
}

// Forget notes that a subject is not used now: what was heard of it may not hold any more.
func (a *Permissions) Reset(name string) {
	if a == nil {
		return
	}
	a.update(func() {
		if g := a.find(name); g != nil {
			g.known, g.pending, g.Subject.Refused = false, false, false
		}
	})
}

func (a *Permissions) confirmPermission(g *permission) {
	if !g.pending {
		return
	}
	g.pending = false
	if g.denied {
		return
	}
	if g.Subject.Refused {
		a.log.Info("NATS grants a permission that it denied before", "subject", g.Name)
	}
	g.known, g.Subject.Refused = true, false
}

// Refuses reports whether a subject is refused.
func (a *Permissions) Denied(name string) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.find(name)
	return g != nil && g.known && g.Subject.Refused
}

func (a *Permissions) find(name string) *permission {
	for _, g := range a.all {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// change changes something, and says how it stands.
func (a *Permissions) update(do func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	do()
	var all []fleet.Subject
	up := a.connected && a.confirmed
	a.fleet.Stats.NATSServer.SetConnected(a.connected)
	for _, g := range a.all {
		if g.known && a.connected {
			all = append(all, g.Subject)
			up = up && !(g.Required && g.Subject.Refused)
		}
	}
	a.fleet.Diagnostics.SetSubjects(all)
	a.fleet.Stats.NATS.SetConnected(up)
	if up && !a.up && a.onUp != nil {
		a.onUp()
	}
	a.up = up
}

// covers reports whether a subject is of those that the grant is of.
func (g *permission) covers(subject string) bool {
	if subject == g.Name {
		return true
	}
	for word := range strings.SplitSeq(g.Name, ".") {
		if word == ">" {
			return subject != ""
		}
		var of string
		if of, subject, _ = strings.Cut(subject, "."); of != word && word != "*" {
			return false
		}
	}
	return subject == ""
}
