package collect

import (
	"log/slog"
	"strings"
	"sync"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// Permissions records which of the subjects that the program uses the NATS server denies.
// While a required one is denied, the program counts as not connected. Not every fleet sends
// events on the optional ones, so a newer program, which reads more subjects, still works with the
// permissions that an earlier one needed. A nil Permissions denies nothing.
type Permissions struct {
	fleet       *fleet.Fleet
	log         *slog.Logger
	reconnected chan struct{} // has room for one; receives a value after each new connection

	mu        sync.Mutex
	all       []*permission
	connected bool
	confirmed bool   // the server has processed all subscriptions
	up        bool   // connected and no required subject is denied, as of the last update
	onUp      func() // called whenever up becomes true; may be nil
}

// permission is what is known about one subject.
type permission struct {
	fleet.Subject
	publishes bool // the program publishes on it; otherwise it subscribes to it
	known     bool // Subject.Refused is valid
	pending   bool // it is in use, but the server has not confirmed that yet
	denied    bool // the server has denied it since the use began
}

const (
	inboxSubjects = "_INBOX.dynamo-metrics.>"
	statsSubject  = "$SRV.STATS.*"
)

// newPermissions returns the permissions of all subjects that the program uses in these
// namespaces.
func newPermissions(f *fleet.Fleet, namespaces wire.Namespaces, log *slog.Logger) *Permissions {
	p := &Permissions{fleet: f, log: log, reconnected: make(chan struct{}, 1)}
	add := func(required, publishes bool, subjects ...string) {
		for _, s := range subjects {
			p.all = append(p.all, &permission{Subject: fleet.Subject{Name: s, Required: required}, publishes: publishes})
		}
	}
	add(true, false, wire.EventSubjects(namespaces, wire.TopicHitRate)[0])
	add(true, false, wire.EventSubjects(namespaces, wire.TopicLoad)...)
	add(true, false, inboxSubjects)
	add(true, true, statsSubject)
	add(false, false, wire.EventSubjects(namespaces, wire.TopicForwardPass)...)
	add(false, false, wire.TraceSubject)
	add(false, true, wire.L2CSubjects(namespaces))
	return p
}

// OnUp sets the function that is called whenever NATS becomes connected with all required
// subjects allowed.
func (p *Permissions) OnUp(f func()) { p.onUp = f }

// SetConnected records a change of the connection. nats.go repeats all subscriptions on a new
// connection.
func (p *Permissions) SetConnected(up bool) {
	p.update(func() {
		p.connected, p.confirmed = up, false
		for _, perm := range p.all {
			perm.pending, perm.denied = up && !perm.publishes, false
			perm.known = perm.known && perm.publishes // the server checks a publication only when it is made
		}
	})
	if up {
		select {
		case p.reconnected <- struct{}{}:
		default:
		}
	}
}

// confirm records that the server has processed all subscriptions: those that it did not deny
// are allowed.
func (p *Permissions) confirm() {
	p.update(func() {
		p.confirmed = true
		for _, perm := range p.all {
			if !perm.publishes {
				p.confirmPermission(perm)
			}
		}
	})
}

func (p *Permissions) isConfirmed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.confirmed
}

// RecordDenial records that the server denies a subject. An empty subject means that the server
// did not name it: then it is one of those that are pending, or any subscription. RecordDenial
// reports whether the program uses the subject, and whether it was allowed before.
func (p *Permissions) RecordDenial(subject string, publishing bool) (known, isNew bool) {
	p.fleet.Stats.CountFailure(stats.PeerNATS)
	p.update(func() {
		if subject == "" {
			p.denyUnnamed()
			known = true
			return
		}
		for _, perm := range p.all {
			if perm.publishes == publishing && perm.covers(subject) {
				known = true
				isNew = p.markDenied(perm)
				return
			}
		}
	})
	return known, isNew
}

// denyUnnamed marks the pending subscriptions as denied, or all of them if none is pending.
func (p *Permissions) denyUnnamed() {
	anyPending := false
	for _, perm := range p.all {
		if perm.pending && !perm.publishes {
			anyPending = true
			p.markDenied(perm)
		}
	}
	for _, perm := range p.all {
		if !anyPending && !perm.publishes {
			p.markDenied(perm)
		}
	}
}

// markDenied reports whether the subject was not yet marked as denied.
func (p *Permissions) markDenied(perm *permission) bool {
	isNew := !perm.Subject.Refused
	perm.denied, perm.known, perm.Subject.Refused = true, true, true
	return isNew
}

// BeginUse records that the program is about to use a subject.
func (p *Permissions) BeginUse(name string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if perm := p.find(name); perm != nil {
		perm.pending, perm.denied = true, false
	}
}

// ConfirmUse records that the server has processed the use of a subject: it is allowed unless
// the server has denied it.
func (p *Permissions) ConfirmUse(name string) {
	if p == nil {
		return
	}
	p.update(func() {
		if perm := p.find(name); perm != nil {
			p.confirmPermission(perm)
		}
	})
}

// Reset records that a subject is not in use, so that nothing is known about it any more.
func (p *Permissions) Reset(name string) {
	if p == nil {
		return
	}
	p.update(func() {
		if perm := p.find(name); perm != nil {
			perm.known, perm.pending, perm.Subject.Refused = false, false, false
		}
	})
}

func (p *Permissions) confirmPermission(perm *permission) {
	if !perm.pending {
		return
	}
	perm.pending = false
	if perm.denied {
		return
	}
	if perm.Subject.Refused {
		p.log.Info("NATS grants a permission that it denied before", "subject", perm.Name)
	}
	perm.known, perm.Subject.Refused = true, false
}

// Denied reports whether the server denies a subject.
func (p *Permissions) Denied(name string) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	perm := p.find(name)
	return perm != nil && perm.known && perm.Subject.Refused
}

func (p *Permissions) find(name string) *permission {
	for _, perm := range p.all {
		if perm.Name == name {
			return perm
		}
	}
	return nil
}

// update runs change under the lock, and then publishes the new state.
func (p *Permissions) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	var known []fleet.Subject
	up := p.connected && p.confirmed
	p.fleet.Stats.NATSServer.SetConnected(p.connected)
	for _, perm := range p.all {
		if perm.known && p.connected {
			known = append(known, perm.Subject)
			up = up && !(perm.Required && perm.Subject.Refused)
		}
	}
	p.fleet.Diagnostics.SetSubjects(known)
	p.fleet.Stats.NATS.SetConnected(up)
	if up && !p.up && p.onUp != nil {
		p.onUp()
	}
	p.up = up
}

// covers reports whether a subject matches the permission's, in which "*" stands for one token
// and a ">" at the end for one or more.
func (perm *permission) covers(subject string) bool {
	if subject == perm.Name {
		return true
	}
	for token := range strings.SplitSeq(perm.Name, ".") {
		if token == ">" {
			return subject != ""
		}
		var first string
		if first, subject, _ = strings.Cut(subject, "."); first != token && token != "*" {
			return false
		}
	}
	return subject == ""
}
