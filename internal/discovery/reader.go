package discovery

import (
	"errors"
	"log/slog"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// entry is a key of the registry with its decoded value.
type entry struct {
	key       string
	owner     string // the Kubernetes resource that has the key; empty for etcd and files, where keys are unique
	namespace string // the Dynamo namespace of the key
	label     string // the namespace of its endpoints: empty if one namespace is watched
	kind      stats.Kind
	keyValid  bool // the key could be parsed

	layout       wire.Layout    // of an instance
	instance     fleet.Instance // the instance, or the one of the card
	registration fleet.Registration
	card         fleet.Card
	channel      fleet.Channel
}

// registryKey identifies e among all entries of the registry.
func (e *entry) registryKey() string {
	if e.owner == "" {
		return e.key
	}
	return e.owner + "/" + e.key
}

// decode decodes the value of e's key.
func (e *entry) decode(value []byte) (err error) {
	switch e.kind {
	case stats.InstanceKeys:
		e.registration, err = e.layout.ParseValue(e.namespace, e.instance, value)
	case stats.CardKeys:
		e.card, err = wire.ParseCard(value)
	case stats.ChannelKeys:
		e.channel, err = wire.ParseChannel(e.namespace, e.key, value)
		e.channel.Endpoint.Namespace = e.label
	}
	return err
}

// addTo adds e to the Fleet.
func (e *entry) addTo(f *fleet.Fleet) {
	switch e.kind {
	case stats.InstanceKeys:
		f.Register(e.registryKey(), e.instance, e.registration)
	case stats.CardKeys:
		f.SetCard(e.registryKey(), e.instance, e.card)
	case stats.ChannelKeys:
		f.AddChannel(e.registryKey(), e.channel)
	}
}

// removeFrom removes e from the Fleet.
func (e *entry) removeFrom(f *fleet.Fleet) {
	switch e.kind {
	case stats.InstanceKeys:
		f.Deregister(e.registryKey(), e.instance)
	case stats.CardKeys:
		f.DropCard(e.registryKey(), e.instance)
	case stats.ChannelKeys:
		f.RemoveChannel(e.registryKey())
	}
}

// appendTo adds e to a listing.
func (e *entry) appendTo(all fleet.Listing) {
	switch e.kind {
	case stats.InstanceKeys:
		all.Instances[e.registryKey()] = fleet.InstanceEntry{Instance: e.instance, Registration: e.registration}
	case stats.CardKeys:
		all.Cards[e.registryKey()] = fleet.CardEntry{Instance: e.instance, Card: e.card}
	case stats.ChannelKeys:
		all.Channels[e.registryKey()] = e.channel
	}
}

func newListing() fleet.Listing {
	return fleet.Listing{
		Instances: make(map[string]fleet.InstanceEntry),
		Cards:     make(map[string]fleet.CardEntry),
		Channels:  make(map[string]fleet.Channel),
	}
}

// reader reads the registry of the watched namespaces key by key, from etcd, files or Kubernetes,
// and counts what it reads.
type reader struct {
	namespaces wire.Namespaces
	fleet      *fleet.Fleet
	log        *slog.Logger
}

// parseKey parses a key. It returns false for valid keys that the program does not read.
func (r *reader) parseKey(key string) (e entry, ok bool) {
	namespace, watched := r.namespaces.OfKey(key)
	if !watched || key == wire.LeaderKey(namespace) || wire.IsIgnoredKey(namespace, key) {
		return e, false
	}
	e.key, e.namespace, e.label = key, namespace, r.namespaces.Label(namespace)
	for _, l := range wire.Layouts {
		if strings.HasPrefix(key, l.Prefix(namespace)) {
			e.kind, e.layout = stats.InstanceKeys, l
			e.instance, e.keyValid = l.ParseKey(namespace, key)
			return e.withLabel(), true
		}
	}
	if strings.HasPrefix(key, wire.CardPrefix(namespace)) {
		e.kind = stats.CardKeys
		e.instance, e.keyValid = wire.ParseCardKey(namespace, key)
		return e.withLabel(), true
	}
	for _, p := range wire.ChannelPrefixes(namespace) {
		if strings.HasPrefix(key, p) {
			e.kind = stats.ChannelKeys
			_, e.keyValid = wire.ParseChannelKey(namespace, key)
			// The first prefix of a namespace called "namespace" covers the channels of all
			// other namespaces, too (1.4 to 1.6).
			return e, e.keyValid || namespace != "namespace"
		}
	}
	return e, false
}

// withLabel sets the namespace of e's endpoint, if several namespaces are watched.
func (e entry) withLabel() entry {
	e.instance.Namespace = e.label
	return e
}

// parse parses a key and decodes its value.
func (r *reader) parse(key string, value []byte) (entry, bool) {
	e, ok := r.parseKey(key)
	return e, ok && r.decode(&e, value)
}

// decode decodes the value of e's key. If that fails, it counts the key as rejected, leaves e as
// it was, and returns false.
func (r *reader) decode(e *entry, value []byte) bool {
	r.fleet.Stats.CountMessage(e.kind)
	decoded, err := *e, errBadKey
	if e.keyValid {
		err = decoded.decode(value)
	}
	if err != nil {
		if unknown := wire.CheckKind(value); unknown != nil {
			err = unknown
		}
		r.reject(e, reasonOf(err), err)
		return false
	}
	*e = decoded
	return true
}

var errBadKey = errors.New("the key cannot be parsed")

// reasonOf returns the reason under which a rejected key is counted.
func reasonOf(err error) stats.Reason {
	switch {
	case errors.Is(err, errBadKey):
		return stats.BadName
	case errors.Is(err, wire.ErrUnknownKind):
		return stats.UnknownKind
	case errors.Is(err, wire.ErrMismatch):
		return stats.BadID
	}
	return stats.BadJSON
}

func (r *reader) reject(e *entry, why stats.Reason, err error) {
	r.fleet.Stats.CountRejected(e.kind, why)
	r.log.Debug("Ignored a key of the registry", "kind", e.kind, "key", e.key, "error", err)
}

// upsert applies a key that is new or has changed. If the value cannot be decoded, the last one
// stays: the key proves that its owner is alive, and there is no newer value.
func (r *reader) upsert(key string, value []byte) {
	if e, ok := r.parse(key, value); ok {
		r.add(&e)
	}
}

func (r *reader) add(e *entry) {
	e.addTo(r.fleet)
	r.log.Debug("Registered", "kind", e.kind, "key", e.key)
}

// delete applies the deletion of a key.
func (r *reader) delete(key string) {
	if e, ok := r.parseKey(key); ok && e.keyValid {
		r.remove(&e)
	}
}

func (r *reader) remove(e *entry) {
	r.fleet.Stats.CountMessage(e.kind)
	e.removeFrom(r.fleet)
	r.log.Debug("Deregistered", "kind", e.kind, "key", e.key)
}
