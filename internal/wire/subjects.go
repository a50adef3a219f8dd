package wire

import (
	"slices"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// The topics of events, as subjects and envelopes name them.
const (
	TopicLoad        = "kv_metrics"           // 0.4.1 to 1.6
	TopicHitRate     = "kv-hit-rate"          // up to 0.9
	TopicForwardPass = "forward-pass-metrics" // 1.1 to 1.6
	TopicKVEvents    = "kv-events"            // from workers to routers, about KV caches; not read here
)

// EventSubjects returns the NATS subjects to subscribe to for the namespaces' events of one
// topic. Events have a subject of the whole namespace (load up to 1.3, hit rate up to 0.9),
// of a component (forward passes, 1.1 to 1.3) or of an endpoint (all topics from 1.4 on). No
// message matches two of them. A ZMQ broker has the same subjects, without wildcards. For a
// pattern the subjects match every namespace: the receiver checks SubjectNamespace.
func EventSubjects(namespaces Namespaces, topic string) []string {
	plain, escaped := "namespace."+namespaces.subjectToken()+".", "namespace."+escapeName(namespaces.subjectToken())+"."
	if namespaces.IsPattern() {
		escaped = plain
	}
	return []string{
		plain + topic,
		plain + "component.*." + topic,
		escaped + "component.*.endpoint.*." + topic,
	}
}

// BrokerTopics returns the subscriptions at a ZMQ broker for the namespaces' events of the
// topics. They are prefixes of subjects. The topic is the last token of a subject, so the
// broker also sends events of other topics.
func BrokerTopics(namespaces Namespaces, topics ...string) []string {
	if namespaces.IsPattern() {
		p := namespaces.prefix()
		return sortedUnique([]string{"namespace." + p, "namespace." + escapeName(p)})
	}
	var all []string
	for _, topic := range topics {
		subjects := EventSubjects(namespaces, topic)
		all = append(all, subjects[0])
		for _, s := range subjects[1:] {
			prefix, _, _ := strings.Cut(s, "*")
			all = append(all, prefix)
		}
	}
	return sortedUnique(all)
}

// sortedUnique sorts the list and removes duplicates.
func sortedUnique(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

// SubjectNamespace returns the namespace that an event's subject names, or "" if it names
// none.
func SubjectNamespace(subject string) string {
	rest, ok := strings.CutPrefix(subject, "namespace.")
	token, _, found := strings.Cut(rest, ".")
	name, decoded := unescape(token)
	if !ok || !found || !decoded {
		return ""
	}
	return name
}

// ParseEventSubject returns the endpoint and topic of an event's subject, which must have
// one of the forms of EventSubjects for this namespace. The endpoint has no name if the
// subject is of a component, and is empty if it is of the whole namespace. From 1.4 on
// names in subjects are percent-encoded, so every dot separates two tokens. Earlier
// releases do not encode names, but 1.0 to 1.3 allow no dots in names either.
func ParseEventSubject(namespace, subject string) (e fleet.Endpoint, topic string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "namespace.")
	if !ok {
		return fleet.Endpoint{}, "", false
	}
	inside, ok := cutToken(rest, namespace, '.')
	if !ok {
		if inside, ok = cutToken(rest, escapeName(namespace), '.'); !ok {
			return fleet.Endpoint{}, "", false
		}
	}
	e, token, ok := cutScope(inside, '.')
	topic, decoded := unescape(token)
	if !ok || !decoded || !validName(topic) || strings.IndexByte(token, '.') >= 0 {
		return fleet.Endpoint{}, "", false
	}
	return e, topic, true
}

// escapeName returns a name as releases from 1.4 on write it in the subjects and keys of
// events.
func escapeName(name string) string { return escape(name, "-_") }

// cutScope cuts "component.{c}.endpoint.{e}." from the start of s, or the first half of
// that, or nothing. It reports false if a name in it is invalid.
func cutScope(s string, separator byte) (e fleet.Endpoint, rest string, ok bool) {
	for _, part := range [...]struct {
		token string
		name  *string
	}{{"component", &e.Component}, {"endpoint", &e.Name}} {
		after, found := cutToken(s, part.token, separator)
		if !found {
			break
		}
		end := strings.IndexByte(after, separator)
		if end < 0 {
			break // it is a topic of that name, not a scope
		}
		if *part.name, ok = unescape(after[:end]); !ok || !validName(*part.name) {
			return fleet.Endpoint{}, "", false
		}
		s = after[end+1:]
	}
	return e, s, true
}

// cutToken cuts a token and the separator after it from the start of s.
func cutToken(s, token string, separator byte) (rest string, ok bool) {
	if len(s) <= len(token) || s[:len(token)] != token || s[len(token)] != separator {
		return "", false
	}
	return s[len(token)+1:], true
}
