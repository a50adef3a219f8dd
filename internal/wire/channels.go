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

// ChannelPrefixes returns the prefixes of the keys of a namespace's event channels. The
// keys have the form v1/event_channels/{ns}/{component or nothing}/{topic}/{hex} (0.9 to
// 1.3) or
// v1/event_channels/namespace/{ns}[/component/{c}[/endpoint/{e}]]/topic/{topic}/{hex}
// (1.4 to 1.6, each name percent-encoded).
func ChannelPrefixes(namespace string) []string {
	return []string{ChannelsRoot + namespace + "/", scopedRoot + escapeName(namespace) + "/"}
}

// ParseChannelKey returns the channel that a key below one of ChannelPrefixes names. Plane
// and the fields after it stay empty: only the value has them, and a deletion has no value.
func ParseChannelKey(namespace, key string) (fleet.Channel, bool) {
	prefixes := ChannelPrefixes(namespace)
	if rest, ok := strings.CutPrefix(key, prefixes[1]); ok {
		if c, ok := parseScopedChannel(rest); ok {
			return c, true
		}
	}
	rest, ok := strings.CutPrefix(key, prefixes[0])
	component, rest, ok1 := strings.Cut(rest, "/")
	topic, hex, ok2 := strings.Cut(rest, "/")
	id, ok3 := parseKeyID(hex)
	if !ok || !ok1 || !ok2 || !ok3 || component != "" && !validName(component) || !validName(topic) {
		return fleet.Channel{}, false
	}
	return fleet.Channel{Endpoint: fleet.Endpoint{Component: component}, Topic: topic, Publisher: id}, true
}

func parseScopedChannel(s string) (fleet.Channel, bool) {
	e, rest, ok := cutScope(s, '/')
	if !ok {
		return fleet.Channel{}, false
	}
	rest, ok = cutToken(rest, "topic", '/')
	token, hex, found := strings.Cut(rest, "/")
	topic, decoded := unescape(token)
	id, valid := parseKeyID(hex)
	if !ok || !found || !decoded || !valid || !validName(topic) {
		return fleet.Channel{}, false
	}
	return fleet.Channel{Endpoint: e, Topic: topic, Publisher: id}, true
}

var (
	errChannelKey     = errors.New("decode event channel: its key names no channel")
	errChannelAddress = errors.New("decode event channel: no address of the form tcp://host:port")
)

// ParseChannel decodes an event channel (0.9 to 1.6). It does not read the transport of an
// event plane that is not known here.
func ParseChannel(namespace, key string, value []byte) (fleet.Channel, error) {
	c, ok := ParseChannelKey(namespace, key)
	if !ok {
		return fleet.Channel{}, errChannelKey
	}
	var v channelValue
	if err := json.Unmarshal(value, &v); err != nil {
		return fleet.Channel{}, fmt.Errorf("decode event channel: %w", err)
	}
	if ns, e := v.scope(); v.Type != "EventChannel" || ns != namespace || e != c.Endpoint || v.Topic != c.Topic || !v.Publisher.matches(c.Publisher) {
		return fleet.Channel{}, fmt.Errorf("%w: it is a %q of %q/%q, topic %q, publisher %s", ErrMismatch, v.Type, ns, e, v.Topic, v.Publisher)
	}
	config := &v.Transport.Config
	switch v.Transport.Kind {
	case "Nats":
		c.Plane, c.SubjectPrefix = fleet.NATSPlane, config.SubjectPrefix
	case "Zmq":
		c.Plane, c.Address = fleet.ZMQPlane, config.Endpoint
		if !ValidAddress(c.Address) {
			return fleet.Channel{}, errChannelAddress
		}
	case "ZmqBroker":
		c.Plane, c.Address = fleet.BrokerPlane, strings.Join(config.XPub, ";")
		for _, address := range config.XPub {
			if !ValidAddress(address) {
				return fleet.Channel{}, errChannelAddress
			}
		}
	}
	if len(c.SubjectPrefix) > 4*maxName || len(c.Address) > 4*maxName || c.Plane == fleet.BrokerPlane && c.Address == "" {
		return fleet.Channel{}, errChannelAddress
	}
	return c, nil
}

// channelValue is the value of both layouts. From 1.4 on, Scope replaces Namespace and
// Component.
type channelValue struct {
	Type, Namespace, Component, Topic string

	Publisher valueID `json:"instance_id"`
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

// ValidAddress reports whether s is a ZMQ address that a client can connect to over TCP.
func ValidAddress(s string) bool {
	rest, ok := strings.CutPrefix(s, "tcp://")
	host, port, err := net.SplitHostPort(rest)
	n, errPort := strconv.ParseUint(port, 10, 16)
	return ok && err == nil && errPort == nil && n > 0 && validName(host) && !strings.ContainsFunc(host, notInHost)
}

// notInHost reports whether a rune appears neither in host names nor in IP addresses,
// including IPv6 addresses with a zone.
func notInHost(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_:%", r))
}
