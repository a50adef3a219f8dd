// Package wire decodes what Dynamo sends into the values of package fleet, and encodes it.
// It knows the names, keys, replies and events of every release. It uses neither the
// network nor a clock.
package wire

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"lukechampine.com/blake3"
)

// Era is a range of releases that name NATS services in the same way.
type Era int

const (
	// EraSeed is up to 0.1.0. The name ends with a hash of "{namespace}|{component}".
	EraSeed Era = iota
	// EraHashed is 0.1.1 and 0.2.0. The name ends with a hash of "{namespace}_{component}".
	EraHashed
	// EraPlain is 0.2.1 and later. The name has no hash, and keeps "-".
	EraPlain
)

// Eras lists every era, oldest first. Every poll uses the service names of all eras.
var Eras = [...]Era{EraSeed, EraHashed, EraPlain}

// ServiceName returns the NATS service name that the releases of era give a component.
func ServiceName(era Era, namespace, component string) string {
	name := slug(namespace+"_"+component, era == EraPlain)
	switch era {
	case EraSeed:
		name += "_" + hash(namespace+"|"+component)
	case EraHashed:
		name += "_" + hash(namespace+"_"+component)
	}
	// The underscores are trimmed after the hash is appended, so that of a name of
	// underscores only the hash remains.
	return strings.TrimLeft(name, "_")
}

// IsServiceOf reports whether the releases of some era give the component this service
// name. Several components may have one name: from 0.2.1 on, those that differ in case only.
func IsServiceOf(service, namespace, component string) bool {
	return slices.ContainsFunc(Eras[:], func(era Era) bool { return ServiceName(era, namespace, component) == service })
}

// slug returns s as Dynamo's slug function does: in lower case, with "_" for every character
// but [a-z0-9_] (and "-" from 0.2.1 on).
func slug(s string, keepDash bool) string {
	s = strings.ReplaceAll(s, "\u0130", "i_") // Rust lowers this letter alone to two characters, Go to one
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-' && keepDash:
			return r
		default:
			return '_'
		}
	}, strings.ToLower(s))
}

// hash returns the last eight hexadecimal digits of the BLAKE3 digest of s.
func hash(s string) string {
	sum := blake3.Sum256([]byte(s))
	return hex.EncodeToString(sum[len(sum)-4:])
}

// StatsSubject returns the NATS subject on which every instance of a NATS micro service
// replies with its statistics.
func StatsSubject(service string) string { return "$SRV.STATS." + service }

// Subject returns the NATS subject of an endpoint of a service. A static worker, which runs
// without etcd, has lease 0 and no suffix.
func Subject(service, endpoint string, lease uint64) string {
	if lease == 0 {
		return service + "." + endpoint
	}
	return service + "." + endpoint + "-" + HexID(lease)
}

// maxName is the limit, in bytes, of names and ids from the network.
const maxName = 256

// validName reports whether a name from the network may be the name of an endpoint or a
// component. It becomes a label, so it must be UTF-8 and short.
func validName[S string | []byte](s S) bool {
	return 0 < len(s) && len(s) <= maxName && utf8.Valid([]byte(s))
}

// ValidStaticID reports whether the id of a stats reply can identify a static worker. It
// must not look like a lease id, or two workers could have the same label.
func ValidStaticID(id string) bool {
	if strings.Trim(id, "0123456789") != "" {
		return validName(id)
	}
	_, err := strconv.ParseUint(id, 10, 64)
	return validName(id) && err != nil
}

// HitRateSubject returns the NATS subject on which the KV routers of a namespace publish
// their hit-rate events (all releases up to 0.9).
func HitRateSubject(namespace string) string { return "namespace." + namespace + ".kv-hit-rate" }

// L2CSubject returns the NATS subject on which the original published the polled loads.
func L2CSubject(namespace, component, endpoint string) string {
	return "namespace." + namespace + ".l2c." + component + "." + endpoint
}

// L2CSubjects returns a NATS wildcard subject that matches every L2CSubject of the
// namespaces.
func L2CSubjects(namespaces Namespaces) string {
	return "namespace." + namespaces.subjectToken() + ".l2c.>"
}
