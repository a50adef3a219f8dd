package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// Layout is a way of writing the registry of endpoints in etcd, or in files.
type Layout int

const (
	// LayoutComponents is up to 0.2.1: {ns}/components/{component}/{endpoint}:{hex}.
	LayoutComponents Layout = iota
	// LayoutInstances is 0.3.0 to 0.5.1: instances/{ns}/{component}/{endpoint}:{hex}.
	LayoutInstances
	// LayoutV1 is 0.6 to 1.6: v1/instances/{ns}/{component}/{endpoint}/{hex}.
	LayoutV1
)

// What keys begin with, but those of LayoutComponents. Kubernetes has what stands behind
// the exported ones as the keys of three maps (0.8 to 1.6).
const (
	oldInstancesRoot = "instances/"
	InstancesRoot    = "v1/instances/"
	CardsRoot        = "v1/mdc/"
	ChannelsRoot     = "v1/event_channels/"
	scopedRoot       = ChannelsRoot + "namespace/" // 1.4 to 1.6
)

// Layouts lists every layout, oldest first.
var Layouts = [...]Layout{LayoutComponents, LayoutInstances, LayoutV1}

// Prefix is the start of every key of a namespace.
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

// separator is what stands between endpoint and id in a key.
func (l Layout) separator() byte {
	if l == LayoutV1 {
		return '/'
	}
	return ':'
}

// Key is where a worker registers an endpoint.
func (l Layout) Key(namespace string, in fleet.Instance) string {
	return l.Prefix(namespace) + in.Component + "/" + in.Name + string(l.separator()) + HexID(in.ID)
}

// Value is what a worker writes there, as Dynamo does. The address is the endpoint's
// Subject. With LayoutV1 the value is that of 1.6, and the address is over TCP:
// {host}:{port}/{hex}/{ns}/{component}/{endpoint}. Under that layout 0.6 writes what
// LayoutInstances does, and releases between leave out one or both of the last fields.
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

// UniqueInstanceKey is held by the one metrics program of a namespace.
func LeaderKey(namespace string) string {
	return LayoutComponents.Prefix(namespace) + "metrics/instance"
}

// ParseKey reads the endpoint and worker out of a key below l.Prefix(namespace).
// It reports false for keys that register no endpoint.
func (l Layout) ParseKey(namespace, key string) (fleet.Instance, bool) {
	rest, ok := strings.CutPrefix(key, l.Prefix(namespace))
	if !ok {
		return fleet.Instance{}, false
	}
	return parseInstance(rest, l.separator())
}

// parseInstance reads {component}/{endpoint}, a separator, {hex}.
func parseInstance(s string, separator byte) (fleet.Instance, bool) {
	component, rest, ok := strings.Cut(s, "/")
	last := strings.LastIndexByte(rest, separator)
	if !ok || last < 0 || !validName(component) || !validName(rest[:last]) {
		return fleet.Instance{}, false
	}
	id, ok := parseKeyID(rest[last+1:])
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: rest[:last]}, ID: id}, ok
}

// Ignored reports whether a key that ParseKey or ParseCardKey reads, or refuses, is
// one that this program has no use for though nothing is wrong with it: that of an endpoint
// of a worker that takes no requests, or of the model card of a LoRA adapter (1.x), whose
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

// ErrMismatch says that a key and its value speak of different endpoints, workers
// or publishers.
var ErrMismatch = errors.New("value does not fit its key")

// ErrUnknownKind says that a value of the registry is of a kind that is not known here, as
// VeloPeer, MetricsEndpoint and EventSource are. Nothing is wrong with it.
var ErrUnknownKind = errors.New("value of a kind that is not known")

// typeEndpoint is the type of a value of LayoutV1, from 0.8 on.
const typeEndpoint = "Endpoint"

// CheckKind reports ErrUnknownKind for a value of such a kind, whatever its key is.
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

// maxTransport bounds, in bytes, where a worker takes requests: host:port and a path of its
// id, namespace, component and endpoint.
const maxTransport = 1024

// ParseValue decodes the value of an endpoint's key. The key alone says which worker
// it is: a deletion carries no value, and a value may be rounded: see valueID.
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
