package wire

import (
	"cmp"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// Namespaces selects the Dynamo namespaces to watch. It is either the name of one
// namespace, or a prefix followed by "*" that selects all namespaces whose names begin with
// the prefix. Dynamo's Kubernetes operator (from 1.0 at the latest) appends a hash of the
// workers' configuration to their namespace, so during a rolling update there are two.
type Namespaces string

// IsPattern reports whether n ends with "*", and so may select several namespaces.
func (n Namespaces) IsPattern() bool { return strings.HasSuffix(string(n), "*") }

// Match reports whether n selects the namespace of this name. Names that a pattern selects
// come from the network and become labels, so they must be valid.
func (n Namespaces) Match(name string) bool {
	if !n.IsPattern() {
		return name == string(n)
	}
	return validName(name) && strings.HasPrefix(name, n.prefix())
}

// Overlaps reports whether some name may match both n and other. For example "x*" overlaps
// "*" and "xy*".
func (n Namespaces) Overlaps(other Namespaces) bool {
	switch {
	case !other.IsPattern():
		return n.Match(string(other))
	case !n.IsPattern():
		return other.Match(string(n))
	}
	p, q := n.prefix(), other.prefix()
	longer := max(p, q) // the longer one if one is a prefix of the other
	return strings.HasPrefix(longer, p) && strings.HasPrefix(longer, q) && (longer == "" || validName(longer))
}

// Label returns the namespace label of the endpoints of the namespace of this name. It is
// empty if only one namespace is watched.
func (n Namespaces) Label(name string) string {
	if n.IsPattern() {
		return name
	}
	return ""
}

// OfEndpoint returns the name of the namespace of an endpoint.
func (n Namespaces) OfEndpoint(e fleet.Endpoint) string { return cmp.Or(e.Namespace, string(n)) }

func (n Namespaces) prefix() string { return strings.TrimSuffix(string(n), "*") }

// KeyPrefixes returns the prefixes of all keys of these namespaces in the registry. For a
// pattern they do not cover the keys of releases up to 0.2.1, which begin with the
// namespace: no Kubernetes operator creates those. No key has two of the prefixes.
func (n Namespaces) KeyPrefixes() []string {
	if n.IsPattern() {
		p := n.prefix()
		all := []string{oldInstancesRoot + p, InstancesRoot + p, CardsRoot + p, ChannelsRoot + p}
		if scoped := scopedRoot + escapeName(p); !strings.HasPrefix(scoped, ChannelsRoot+p) {
			all = append(all, scoped)
		}
		return all
	}
	var all []string
	for _, l := range Layouts {
		all = append(all, l.Prefix(string(n)))
	}
	all = append(all, CardPrefix(string(n)))
	channels := ChannelPrefixes(string(n))
	all = append(all, channels[0])
	if !strings.HasPrefix(channels[1], channels[0]) { // it does if the namespace is called "namespace"
		all = append(all, channels[1])
	}
	return all
}

// OfKey returns the name of the namespace that a key of the registry belongs to. It reports
// false if n does not select that namespace. If n is one namespace, OfKey returns its name
// without looking at the key: the caller has matched one of KeyPrefixes.
func (n Namespaces) OfKey(key string) (name string, ok bool) {
	if !n.IsPattern() {
		return string(n), true
	}
	name = keyNamespace(key)
	return name, n.Match(name)
}

// keyNamespace returns the namespace that a key names, or "" if it names none.
func keyNamespace(key string) string {
	for _, root := range []string{oldInstancesRoot, InstancesRoot, CardsRoot, ChannelsRoot} {
		rest, ok := strings.CutPrefix(key, root)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, "/")
		if scoped := scopedNamespace(key); scoped != "" {
			name = scoped
		}
		return name
	}
	return ""
}

// scopedNamespace returns the namespace of a channel's key in the form of 1.4 to 1.6, or ""
// for other keys.
func scopedNamespace(key string) string {
	rest, ok := strings.CutPrefix(key, scopedRoot)
	token, rest, found := strings.Cut(rest, "/")
	name, decoded := unescape(token)
	if _, parsed := parseScopedChannel(rest); !ok || !found || !decoded || !parsed {
		return ""
	}
	return name
}

// subjectToken returns the token for the namespaces in the subject of a NATS subscription.
func (n Namespaces) subjectToken() string {
	if n.IsPattern() {
		return "*"
	}
	return string(n)
}
