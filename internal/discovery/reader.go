package discovery

import (
	"errors"
	"log/slog"
	"slices"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// entry is a key of the registry and, once it is decoded, what its value says.
type entry struct {
	key   string
	kind  fleet.Kind
	named bool // the key names what it is of

	layout       wire.Layout    // of an endpoint
	in           fleet.Instance // the endpoint, or the one whose card it is
	registration fleet.Registration
	card         fleet.Card
	channel      fleet.Channel
}

// decode reads the value of e's key.
func (e *entry) decode(namespace string, value []byte) (err error) {
	switch e.kind {
	case fleet.Instances:
		e.registration, err = e.layout.ParseValue(namespace, e.in, value)
	case fleet.Cards:
		e.card, err = wire.ParseCard(value)
	case fleet.Channels:
		e.channel, err = wire.ParseChannel(namespace, e.key, value)
	}
	return err
}

// put adds e to what the Fleet knows.
func (e *entry) put(f *fleet.Fleet) {
	switch e.kind {
	case fleet.Instances:
		f.Register(e.in, e.registration)
	case fleet.Cards:
		f.SetCard(e.in, e.card)
	case fleet.Channels:
		f.Announce(e.key, e.channel)
	}
}

// remove takes e out of what the Fleet knows.
func (e *entry) remove(f *fleet.Fleet) {
	switch e.kind {
	case fleet.Instances:
		f.Deregister(e.in)
	case fleet.Cards:
		f.DropCard(e.in)
	case fleet.Channels:
		f.Withdraw(e.key)
	}
}

// list adds e to a listing.
func (e *entry) list(all fleet.Listing) {
	switch e.kind {
	case fleet.Instances:
		all.Instances[e.in] = e.registration
	case fleet.Cards:
		all.Cards[e.in] = e.card
	case fleet.Channels:
		all.Channels[e.key] = e.channel
	}
}

func newListing() fleet.Listing {
	return fleet.Listing{
		Instances: make(map[fleet.Instance]fleet.Registration),
		Cards:     make(map[fleet.Instance]fleet.Card),
		Channels:  make(map[string]fleet.Channel),
	}
}

// prefixes are the starts of all keys of a namespace. No key has two of them.
func prefixes(namespace string) []string {
	var all []string
	for _, l := range wire.Layouts {
		all = append(all, l.Prefix(namespace))
	}
	all = append(all, wire.CardPrefix(namespace))
	for _, p := range wire.ChannelPrefixes(namespace) {
		// In a namespace called "namespace" the second layout's keys are below the first's prefix.
		if !slices.ContainsFunc(all, func(q string) bool { return strings.HasPrefix(p, q) }) {
			all = append(all, p)
		}
	}
	return all
}

// reader reads the registry of one namespace key by key, whether it is in etcd or in
// files, and counts what it reads.
type reader struct {
	namespace string
	fleet     *fleet.Fleet
	log       *slog.Logger
}

// find tells what a key is of. It reports false for keys that this program does not
// read though nothing is wrong with them.
func (r *reader) find(key string) (e entry, ok bool) {
	if key == wire.UniqueInstanceKey(r.namespace) || wire.Ignored(r.namespace, key) {
		return e, false
	}
	e.key = key
	for _, l := range wire.Layouts {
		if strings.HasPrefix(key, l.Prefix(r.namespace)) {
			e.kind, e.layout = fleet.Instances, l
			e.in, e.named = l.ParseKey(r.namespace, key)
			return e, true
		}
	}
	if strings.HasPrefix(key, wire.CardPrefix(r.namespace)) {
		e.kind = fleet.Cards
		e.in, e.named = wire.ParseCardKey(r.namespace, key)
		return e, true
	}
	for _, p := range wire.ChannelPrefixes(r.namespace) {
		if strings.HasPrefix(key, p) {
			e.kind = fleet.Channels
			_, e.named = wire.ParseChannelKey(r.namespace, key)
			// Below the first prefix of a namespace called "namespace" are the channels
			// of all others, too (1.4 to 1.6).
			return e, e.named || r.namespace != "namespace"
		}
	}
	return e, false
}

// read finds and decodes what etcd or a file says.
func (r *reader) read(key string, value []byte) (entry, bool) {
	e, ok := r.find(key)
	return e, ok && r.decode(&e, value)
}

// decode decodes the value of e's key. It reports false, and leaves e as it was,
// for what is none of the registry's; that is counted.
func (r *reader) decode(e *entry, value []byte) bool {
	r.fleet.Tally.Receive(e.kind)
	if !e.named {
		r.reject(e, fleet.BadName, errors.New("the key does not name what it is of"))
		return false
	}
	decoded := *e
	if err := decoded.decode(r.namespace, value); err != nil {
		reason := fleet.BadJSON
		if errors.Is(err, wire.ErrMismatch) {
			reason = fleet.BadID
		}
		r.reject(e, reason, err)
		return false
	}
	*e = decoded
	return true
}

func (r *reader) reject(e *entry, why fleet.Reason, err error) {
	r.fleet.Tally.Reject(e.kind, why)
	r.log.Debug("Ignored a key of the registry", "kind", e.kind, "key", e.key, "error", err)
}

// put takes over a key that is new or has changed. Where its value is of no use an
// older one stays: its owner is alive, and nothing else is known.
func (r *reader) put(key string, value []byte) {
	if e, ok := r.read(key, value); ok {
		r.add(&e)
	}
}

func (r *reader) add(e *entry) {
	e.put(r.fleet)
	r.log.Debug("Registered", "kind", e.kind, "key", e.key)
}

// gone takes over that a key is gone.
func (r *reader) gone(key string) {
	if e, ok := r.find(key); ok && e.named {
		r.drop(&e)
	}
}

func (r *reader) drop(e *entry) {
	r.fleet.Tally.Receive(e.kind)
	e.remove(r.fleet)
	r.log.Debug("Deregistered", "kind", e.kind, "key", e.key)
}
