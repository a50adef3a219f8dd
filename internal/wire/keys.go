package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// Layout is the form of the keys and values with which workers register endpoints in etcd
// or in files.
type Layout int

const (
	// LayoutComponents is {ns}/components/{component}/{endpoint}:{hex} (up to 0.2.1).
	LayoutComponents Layout = iota
	// LayoutInstances is instances/{ns}/{component}/{endpoint}:{hex} (0.3.0 to 0.5.1).
	LayoutInstances
	// LayoutV1 is v1/instances/{ns}/{component}/{endpoint}/{hex} (0.6 to 1.6).
	LayoutV1
)

// Prefixes of all keys but those of LayoutComponents. In Kubernetes (0.8 to 1.6) three maps
// correspond to the three exported prefixes; their keys are the rest of the etcd keys.
const (
	oldInstancesRoot = "instances/"
	InstancesRoot    = "v1/instances/"
	CardsRoot        = "v1/mdc/"
	ChannelsRoot     = "v1/event_channels/"
	scopedRoot       = ChannelsRoot + "namespace/" // 1.4 to 1.6
)

// Layouts lists every layout, oldest first.
var Layouts = [...]Layout{LayoutComponents, LayoutInstances, LayoutV1}

// Prefix returns the prefix of every key of a namespace.
func (l Layout) Prefix(namespace string) string {
	switch l {
	case LayoutComponents:
		return namespace + "/components/"
	case LayoutInstances:
		return oldInstancesRoot + namespace + "/"
	default:
		return InstancesRoot + namespace + "/"
	}
}

// separator returns the byte between endpoint and id in a key.
func (l Layout) separator() byte {
	if l == LayoutV1 {
		return '/'
	}
	return ':'
}

// Key returns the key under which a worker registers an endpoint.
func (l Layout) Key(namespace string, in fleet.Instance) string {
	return l.Prefix(namespace) + in.Component + "/" + in.Name + string(l.separator()) + HexID(in.ID)
}

// Value returns the value that a worker writes under Key, byte for byte as Dynamo does. The
// address is the endpoint's Subject. With LayoutV1 the value is that of 1.6, and the address
// is a TCP address, {host}:{port}/{hex}/{ns}/{component}/{endpoint}. In that layout 0.6
// writes the value of LayoutInstances, and the releases in between omit device_type,
// request_plane_codec, or both.
func (l Layout) Value(namespace string, in fleet.Instance, address string) []byte {
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	if l == LayoutV1 {
		return fmt.Appendf(nil, `{"type":%q,"component":%s,"endpoint":%s,"namespace":%s,"instance_id":%d,"transport":{"tcp":%s},"device_type":"cuda","request_plane_codec":"msgpack"}`,
			typeEndpoint, quote(in.Component), quote(in.Name), quote(namespace), in.ID, quote(address))
	}
	idField := "lease_id"
	if l == LayoutInstances {
		idField = "instance_id"
	}
	return fmt.Appendf(nil, `{
  "component": %s,
  "endpoint": %s,
  "namespace": %s,
  %q: %d,
  "transport": {
    "nats_tcp": %s
  }
}`, quote(in.Component), quote(in.Name), quote(namespace), idField, in.ID, quote(address))
}

// LeaderKey returns the key that the leader among a namespace's metrics programs holds.
func LeaderKey(namespace string) string {
	return LayoutComponents.Prefix(namespace) + "metrics/instance"
}

// ParseKey returns the endpoint and worker that a key below l.Prefix(namespace) names. It
// reports false for keys that do not register an endpoint.
func (l Layout) ParseKey(namespace, key string) (fleet.Instance, bool) {
	rest, ok := strings.CutPrefix(key, l.Prefix(namespace))
	if !ok {
		return fleet.Instance{}, false
	}
	return parseInstance(rest, l.separator())
}

// parseInstance parses {component}/{endpoint}, a separator and {hex}.
func parseInstance(s string, separator byte) (fleet.Instance, bool) {
	component, rest, ok := strings.Cut(s, "/")
	last := strings.LastIndexByte(rest, separator)
	if !ok || last < 0 || !validName(component) || !validName(rest[:last]) {
		return fleet.Instance{}, false
	}
	id, ok := parseKeyID(rest[last+1:])
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: rest[:last]}, ID: id}, ok
}

// IsIgnoredKey reports whether a key is valid but not needed by this program, whether
// ParseKey and ParseCardKey accept it or not. It is true for the keys of workers' auxiliary
// endpoints, which take no requests, and for the model cards of LoRA adapters (1.x), whose
// worker has a card of its own.
func IsIgnoredKey(namespace, key string) bool {
	for _, l := range Layouts {
		if rest, ok := strings.CutPrefix(key, l.Prefix(namespace)); ok {
			in, ok := parseInstance(rest, l.separator())
			return ok && isAuxiliary(in.Name)
		}
	}
	last := strings.LastIndexByte(key, '/')
	_, ok := ParseCardKey(namespace, key[:max(last, 0)])
	return ok && validName(key[last+1:])
}

// ErrMismatch reports that a key and its value name different endpoints, workers or
// publishers.
var ErrMismatch = errors.New("value does not fit its key")

// ErrUnknownKind reports that a value of the registry is of a kind that is not known here,
// such as VeloPeer, MetricsEndpoint or EventSource. Such a value is not a fault.
var ErrUnknownKind = errors.New("value of a kind that is not known")

// typeEndpoint is the type of a value of LayoutV1, from 0.8 on.
const typeEndpoint = "Endpoint"

// CheckKind returns ErrUnknownKind for a value of an unknown kind, whatever its key is.
func CheckKind(value []byte) error {
	var v struct{ Type string }
	if json.Unmarshal(value, &v) != nil {
		return nil
	}
	switch v.Type {
	case typeEndpoint, "Model", "EventChannel", "":
		return nil
	}
	return fmt.Errorf("%w: %.40q", ErrUnknownKind, v.Type)
}

// maxTransport is the limit, in bytes, of the address at which a worker takes requests. It
// is host:port and a path of its id, namespace, component and endpoint.
const maxTransport = 1024

// ParseValue decodes the value of an endpoint's key. The caller takes the worker's id from
// the key, because a deletion has no value and the id in a value may be rounded (see
// valueID).
func (l Layout) ParseValue(namespace string, in fleet.Instance, value []byte) (fleet.Registration, error) {
	var v struct {
		Type, Component, Endpoint, Namespace string

		LeaseID    valueID `json:"lease_id"`
		InstanceID valueID `json:"instance_id"`
		Transport  struct {
			NATS *string `json:"nats_tcp"`
			TCP  string  `json:"tcp"`
		}
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return fleet.Registration{}, fmt.Errorf("decode endpoint value: %w", err)
	}
	if l == LayoutV1 && v.Type != typeEndpoint && v.Type != "" {
		return fleet.Registration{}, fmt.Errorf("%w: it is of type %q", ErrMismatch, v.Type)
	}
	id := v.InstanceID
	if l == LayoutComponents {
		id = v.LeaseID
	}
	if v.Namespace != namespace || v.Component != in.Component || v.Endpoint != in.Name || !id.matches(in.ID) {
		return fleet.Registration{}, fmt.Errorf("%w: it is of %q/%q/%q, id %s", ErrMismatch, v.Namespace, v.Component, v.Endpoint, id)
	}
	if len(v.Transport.TCP) > maxTransport {
		return fleet.Registration{}, fmt.Errorf("decode endpoint value: a transport of %d bytes, more than %d", len(v.Transport.TCP), maxTransport)
	}
	return fleet.Registration{
		Role:      roleOf(l, in.Endpoint),
		Publishes: l == LayoutV1,
		NATS:      v.Transport.NATS != nil || l != LayoutV1,
		Transport: v.Transport.TCP,
	}, nil
}
