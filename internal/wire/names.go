// Package wire turns Dynamo's bytes into the values of package fleet and back:
// names, keys, replies and events, per release. It is pure: no network, no clock.
package wire

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"lukechampine.com/blake3"
)

// Era is a span of releases that name NATS services alike.
type Era int

const (
	// EraSeed is up to 0.1.0: a hash of "{namespace}|{component}" ends the name.
	EraSeed Era = iota
	// EraHashed is 0.1.1 and 0.2.0: a hash of "{namespace}_{component}".
	EraHashed
	// EraPlain is 0.2.1 and later: no hash, and "-" is kept.
	EraPlain
)

// Eras lists every era, oldest first. One poll asks under all of their names.
var Eras = [...]Era{EraSeed, EraHashed, EraPlain}

// ServiceName is the NATS service name that the releases of era give a component.
func ServiceName(era Era, namespace, component string) string {
	name := slug(namespace+"_"+component, era == EraPlain)
	switch era {
	case EraSeed:
		name += "_" + hash(namespace+"|"+component)
	case EraHashed:
		name += "_" + hash(namespace+"_"+component)
	}
	// Only now: of a name without a single letter or digit the hash is all that is left.
	return strings.TrimLeft(name, "_")
}

// IsServiceOf reports whether the releases of some era give the component this
// service name. Several components may: from 0.2.1 on, those that differ in case only.
func IsServiceOf(service, namespace, component string) bool {
	return slices.ContainsFunc(Eras[:], func(era Era) bool { return ServiceName(era, namespace, component) == service })
}

// slug is Dynamo's: lower case, everything but [a-z0-9_] (and "-" from 0.2.1 on)
// becomes "_".
func slug(s string, keepDash bool) string {
	s = strings.ReplaceAll(s, "\u0130", "i_") // the one letter that Rust lowers to two characters, Go to one
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-' && keepDash:
			return r
		default:
			return '_'
		}
	}, strings.ToLower(s))
}

// hash is the last eight hexadecimal digits of the blake3 digest of s.
func hash(s string) string {
	sum := blake3.Sum256([]byte(s))
	return hex.EncodeToString(sum[len(sum)-4:])
}

// StatsSubject is where every instance of a NATS micro service answers with its statistics.
func StatsSubject(service string) string { return "$SRV.STATS." + service }

// Subject is the NATS subject of an endpoint of a service. A static worker
// (started without etcd) has lease 0 and no suffix.
func Subject(service, endpoint string, lease uint64) string {
	if lease == 0 {
		return service + "." + endpoint
	}
	return service + "." + endpoint + "-" + HexID(lease)
}

// maxName bounds, in bytes, the names and ids that are taken from the network.
const maxName = 256

// validName reports whether a name from the network can be an endpoint's or a
// component's: something a page can show, and of a size that a page can bear.
func validName[S string | []byte](s S) bool {
	return 0 < len(s) && len(s) <= maxName && utf8.Valid([]byte(s))
}

// ValidStaticID reports whether the id of a stats reply can tell a static worker
// apart. It must not look like a lease id, or two workers would share one label.
func ValidStaticID(id string) bool {
	if strings.Trim(id, "0123456789") != "" {
		return validName(id)
	}
	_, err := strconv.ParseUint(id, 10, 64)
	return validName(id) && err != nil
}

// HitRateSubject is where the KV routers of a namespace publish their hit-rate
// events (all releases to 0.9).
func HitRateSubject(namespace string) string { return "namespace." + namespace + ".kv-hit-rate" }

// L2CSubject is where the original published what it had polled.
func L2CSubject(namespace, component, endpoint string) string {
	return "namespace." + namespace + ".l2c." + component + "." + endpoint
}

// L2CSubjects are all of those of the namespaces, with a wildcard.
func L2CSubjects(namespaces Namespaces) string {
	return "namespace." + namespaces.subjectToken() + ".l2c.>"
}
