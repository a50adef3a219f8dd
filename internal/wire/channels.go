package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// The kinds of event channels.
const (
	ChannelNats   = "Nats"
	ChannelZmq    = "Zmq"       // the publisher's own socket
	ChannelBroker = "ZmqBroker" // a broker that publishers were told to find by itself
)

// Channel is where one publisher's events of one topic come out (0.9 to 1.6).
type Channel struct {
	// Endpoint is the publisher's. It has no name where the channel is of a component
	// (forward passes, 1.1 to 1.3), and is empty where it is of the whole namespace
	// (load to 1.3, hit rate to 0.9).
	Endpoint  fleet.Endpoint
	Topic     string
	Publisher uint64 // as in its envelopes

	Kind          string // ChannelNats, ChannelZmq, or one we do not know
	Address       string // of ChannelZmq: tcp://host:port; of ChannelBroker: those of its readers' side, with ";" between
	SubjectPrefix string // of ChannelNats: that of EventSubjects, without the topic
}

const channelRoot = "v1/event_channels/"

// ChannelPrefixes are the starts of the keys of a namespace's event channels:
// v1/event_channels/{ns}/{component or nothing}/{topic}/{hex} (0.9 to 1.3), and
// v1/event_channels/namespace/{ns}[/component/{c}[/endpoint/{e}]]/topic/{topic}/{hex}
// (1.4 to 1.6, each name percent-encoded).
func ChannelPrefixes(namespace string) []string {
	return []string{channelRoot + namespace + "/", channelRoot + "namespace/" + escapeName(namespace) + "/"}
}

// ParseChannelKey reads out of a key below one of ChannelPrefixes which channel it
// is. Kind and what follows it are in the value only: a deletion has none.
func ParseChannelKey(namespace, key string) (Channel, bool) {
	prefixes := ChannelPrefixes(namespace)
	if rest, ok := strings.CutPrefix(key, prefixes[1]); ok {
		if c, ok := parseScopedChannel(rest); ok {
			return c, true
		}
	}
	rest, ok := strings.CutPrefix(key, prefixes[0])
	component, rest, ok1 := strings.Cut(rest, "/")
	topic, hex, ok2 := strings.Cut(rest, "/")
	id, ok3 := parseHexID(hex)
	if !ok || !ok1 || !ok2 || !ok3 || component != "" && !validName(component) || !validName(topic) {
		return Channel{}, false
	}
	return Channel{Endpoint: fleet.Endpoint{Component: component}, Topic: topic, Publisher: id}, true
}

func parseScopedChannel(s string) (Channel, bool) {
	e, rest, ok := cutScope(s, '/')
	if !ok {
		return Channel{}, false
	}
	rest, ok = cutWord(rest, "topic", '/')
	word, hex, found := strings.Cut(rest, "/")
	topic, decoded := unescape(word)
	id, valid := parseHexID(hex)
	if !ok || !found || !decoded || !valid || !validName(topic) {
		return Channel{}, false
	}
	return Channel{Endpoint: e, Topic: topic, Publisher: id}, true
}

var (
	errChannelKey     = errors.New("decode event channel: its key names none")
	errChannelAddress = errors.New("decode event channel: no address of the form tcp://host:port")
)

// ParseChannel decodes an event channel. Of a kind that we do not know nothing but
// the kind is read.
func ParseChannel(namespace, key string, value []byte) (Channel, error) {
	c, ok := ParseChannelKey(namespace, key)
	if !ok {
		return Channel{}, errChannelKey
	}
	var v channelValue
	if err := json.Unmarshal(value, &v); err != nil {
		return Channel{}, fmt.Errorf("decode event channel: %w", err)
	}
	if ns, e := v.scope(); v.Type != "EventChannel" || ns != namespace || e != c.Endpoint || v.Topic != c.Topic || v.Publisher != c.Publisher {
		return Channel{}, fmt.Errorf("%w: it is a %q of %q/%q, topic %q, publisher %x", ErrMismatch, v.Type, ns, e, v.Topic, v.Publisher)
	}
	c.Kind = v.Transport.Kind
	config := &v.Transport.Config
	switch c.Kind {
	case ChannelNats:
		c.SubjectPrefix = config.SubjectPrefix
	case ChannelZmq:
		c.Address = config.Endpoint
		if !validAddress(c.Address) {
			return Channel{}, errChannelAddress
		}
	case ChannelBroker:
		c.Address = strings.Join(config.XPub, ";")
		for _, address := range config.XPub {
			if !validAddress(address) {
				return Channel{}, errChannelAddress
			}
		}
	}
	if len(c.Kind) > maxName || len(c.SubjectPrefix) > 4*maxName || len(c.Address) > 4*maxName || c.Kind == ChannelBroker && c.Address == "" {
		return Channel{}, errChannelAddress
	}
	return c, nil
}

// channelValue is the value of both layouts: from 1.4 on a scope takes the place of
// namespace and component.
type channelValue struct {
	Type, Namespace, Component, Topic string

	Publisher uint64 `json:"instance_id"`
	Scope     *struct {
		Kind, Name, Namespace, Component string

		Endpoint struct{ Namespace, Component, Name string }
	}
	Transport struct {
		Kind   string
		Config struct {
			SubjectPrefix string   `json:"subject_prefix"`
			Endpoint      string   `json:"endpoint"`
			XPub          []string `json:"xpub_endpoints"`
		}
	}
}

func (v *channelValue) scope() (namespace string, e fleet.Endpoint) {
	if v.Scope == nil {
		return v.Namespace, fleet.Endpoint{Component: v.Component}
	}
	switch v.Scope.Kind {
	case "endpoint":
		in := v.Scope.Endpoint
		return in.Namespace, fleet.Endpoint{Component: in.Component, Name: in.Name}
	case "component":
		return v.Scope.Namespace, fleet.Endpoint{Component: v.Scope.Component}
	case "namespace":
		return v.Scope.Name, fleet.Endpoint{}
	}
	return "", fleet.Endpoint{}
}

// validAddress reports whether a ZMQ address can be connected to over TCP.
func validAddress(s string) bool {
	rest, ok := strings.CutPrefix(s, "tcp://")
	host, port, err := net.SplitHostPort(rest)
	n, errPort := strconv.ParseUint(port, 10, 16)
	return ok && err == nil && errPort == nil && n > 0 && validName(host) && !strings.ContainsFunc(host, notInHost)
}

// notInHost reports whether a rune is neither in names of hosts nor in addresses,
// those of IPv6 with a zone among them.
func notInHost(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_:%", r))
}
