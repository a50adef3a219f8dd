package wire

import (
	"cmp"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// Namespaces says which Dynamo namespaces are watched: one, by its name, or with a
// trailing "*" all whose names begin with what stands before it. Dynamo's Kubernetes
// operator (from 1.0 at the latest) appends a hash of the workers' configuration to
// their namespace, so that two of them live side by side during a rolling update.
type Namespaces string

// Several reports whether more than one namespace may be watched.
func (n Namespaces) IsPattern() bool { return strings.HasSuffix(string(n), "*") }

// Match reports whether the namespace of this name is watched. Of several the names come
// from the network, and become labels.
func (n Namespaces) Match(name string) bool {
	if !n.IsPattern() {
		return name == string(n)
	}
	return validName(name) && strings.HasPrefix(name, n.prefix())
}

// Overlap reports whether a name may be one of both: of what is asked for, and of what is
// watched. One of "x*" is one of "*" and of "xy*", too.
func (n Namespaces) Overlaps(other Namespaces) bool {
	switch {
	case !other.IsPattern():
		return n.Match(string(other))
	case !n.IsPattern():
		return other.Match(string(n))
	}
	p, q := n.prefix(), other.prefix()
	longer := max(p, q) // of two of which one begins with the other
	return strings.HasPrefix(longer, p) && strings.HasPrefix(longer, q) && (longer == "" || validName(longer))
}

// Label is what endpoints of the namespace of this name are told apart by: nothing
// where it is the only one.
func (n Namespaces) Label(name string) string {
	if n.IsPattern() {
		return name
	}
	return ""
}

// Name is the namespace of an endpoint.
func (n Namespaces) OfEndpoint(e fleet.Endpoint) string { return cmp.Or(e.Namespace, string(n)) }

func (n Namespaces) prefix() string { return strings.TrimSuffix(string(n), "*") }

// Prefixes are the starts of all keys of these namespaces in the registry. Of several
// namespaces the keys to 0.2.1 are not among them: they begin with the namespace, and
// no operator made those. No key has two of the prefixes.
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
	if !strings.HasPrefix(channels[1], channels[0]) { // they are in a namespace called "namespace"
		all = append(all, channels[1])
	}
	return all
}

// Of tells which of the namespaces a key of the registry is of; false if of none. Of
// one namespace it is the name: its keys are told by their prefixes.
func (n Namespaces) OfKey(key string) (name string, ok bool) {
	if !n.IsPattern() {
		return string(n), true
	}
	name = keyNamespace(key)
	return name, n.Match(name)
}

// keyNamespace is the namespace that a key names; empty if it names none.
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

// scopedNamespace is the namespace of a channel's key of 1.4 to 1.6; empty if it is of
// another kind.
func scopedNamespace(key string) string {
	rest, ok := strings.CutPrefix(key, scopedRoot)
	word, rest, found := strings.Cut(rest, "/")
	name, decoded := unescape(word)
	if _, parsed := parseScopedChannel(rest); !ok || !found || !decoded || !parsed {
		return ""
	}
	return name
}

// subjectToken is what stands for the namespaces in the subject of a subscription.
func (n Namespaces) subjectToken() string {
	if n.IsPattern() {
		return "*"
	}
	return string(n)
}
