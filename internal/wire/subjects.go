package wire

import (
	"slices"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// The topics of events, as subjects and envelopes name them.
const (
	TopicLoad        = "kv_metrics"           // 0.4.1 to 1.6
	TopicHitRate     = "kv-hit-rate"          // to 0.9
	TopicForwardPass = "forward-pass-metrics" // 1.1 to 1.6
	TopicKVEvents    = "kv-events"            // what workers tell routers of their caches; nobody reads it here
)

// EventSubjects are the NATS subjects on which the namespaces' events of one topic
// come: of the whole namespace (load to 1.3, hit rate to 0.9), of a component
// (forward passes, 1.1 to 1.3) and of an endpoint (all from 1.4 on). No two of them
// ever match one message. A ZMQ broker has the same subjects, without wildcards. Of
// several namespaces they are those of all there are: see ParseEventSubject.
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

// BrokerTopics are what a ZMQ broker is asked for to get the namespaces' events of
// the topics: the starts of their subjects. Topics come last in subjects, so that
// those that nobody reads here come, too.
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

// compacted is the list sorted, each once.
func sortedUnique(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

// SubjectNamespace is the namespace that an event's subject names; empty if it names none.
func SubjectNamespace(subject string) string {
	rest, ok := strings.CutPrefix(subject, "namespace.")
	word, _, found := strings.Cut(rest, ".")
	name, decoded := unescape(word)
	if !ok || !found || !decoded {
		return ""
	}
	return name
}

// ParseEventSubject reads the endpoint and topic out of an event's subject, in one
// of the forms of EventSubjects, of one namespace. The endpoint has no name where the subject is of a
// component, and is empty where it is of the whole namespace. From 1.4 on names are
// percent-encoded in subjects, so that every dot is one between words; earlier
// releases did not, but 1.0 to 1.3 knew no names with dots either.
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
	e, word, ok := cutScope(inside, '.')
	topic, decoded := unescape(word)
	if !ok || !decoded || !validName(topic) || strings.IndexByte(word, '.') >= 0 {
		return fleet.Endpoint{}, "", false
	}
	return e, topic, true
}

// escapeName is how releases from 1.4 on write a name in the subjects and keys of events.
func escapeName(name string) string { return escape(name, "-_") }

// cutScope takes "component.{c}.endpoint.{e}." off the start of s, or as much of it
// as there is. It reports false if a name there cannot be one.
func cutScope(s string, separator byte) (e fleet.Endpoint, rest string, ok bool) {
	for _, part := range [...]struct {
		word string
		name *string
	}{{"component", &e.Component}, {"endpoint", &e.Name}} {
		after, found := cutToken(s, part.word, separator)
		if !found {
			break
		}
		end := strings.IndexByte(after, separator)
		if end < 0 {
			break // it is a topic of that name
		}
		if *part.name, ok = unescape(after[:end]); !ok || !validName(*part.name) {
			return fleet.Endpoint{}, "", false
		}
		s = after[end+1:]
	}
	return e, s, true
}

// cutWord takes word and the separator behind it off the start of s.
func cutToken(s, word string, separator byte) (rest string, ok bool) {
	if len(s) <= len(word) || s[:len(word)] != word || s[len(word)] != separator {
		return "", false
	}
	return s[len(word)+1:], true
}
