package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// Layout is a way of writing the registry of endpoints in etcd.
type Layout int

const (
	// LayoutComponents is up to 0.2.1: {ns}/components/{component}/{endpoint}:{hex}.
	LayoutComponents Layout = iota
	// LayoutInstances is 0.3.0 to 0.5.1: instances/{ns}/{component}/{endpoint}:{hex}.
	LayoutInstances
)

// Layouts lists every layout, oldest first.
var Layouts = [...]Layout{LayoutComponents, LayoutInstances}

// Prefix is the start of every key of a namespace.
func (l Layout) Prefix(namespace string) string {
	if l == LayoutComponents {
		return namespace + "/components/"
	}
	return "instances/" + namespace + "/"
}

// Key is where a worker registers an endpoint.
func (l Layout) Key(namespace string, in fleet.Instance) string {
	return l.Prefix(namespace) + in.Component + "/" + in.Name + ":" + HexID(in.ID)
}

// Value is what a worker writes there, as Dynamo does; subject is the endpoint's.
func (l Layout) Value(namespace string, in fleet.Instance, subject string) []byte {
	idField := "lease_id"
	if l == LayoutInstances {
		idField = "instance_id"
	}
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	return fmt.Appendf(nil, `{
  "component": %s,
  "endpoint": %s,
  "namespace": %s,
  %q: %d,
  "transport": {
    "nats_tcp": %s
  }
}`, quote(in.Component), quote(in.Name), quote(namespace), idField, in.ID, quote(subject))
}

// UniqueInstanceKey is held by the one metrics program of a namespace.
func UniqueInstanceKey(namespace string) string {
	return LayoutComponents.Prefix(namespace) + "metrics/instance"
}

// ParseKey reads the endpoint and worker out of a key below l.Prefix(namespace).
// It reports false for keys that register no endpoint.
func (l Layout) ParseKey(namespace, key string) (fleet.Instance, bool) {
	rest, ok := strings.CutPrefix(key, l.Prefix(namespace))
	component, rest, found := strings.Cut(rest, "/")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || !found || colon < 0 || !validName(component) || !validName(rest[:colon]) {
		return fleet.Instance{}, false
	}
	id, ok := parseHexID(rest[colon+1:])
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: rest[:colon]}, ID: id}, ok
}

// ErrMismatch says that a key and its value speak of different endpoints or workers.
var ErrMismatch = errors.New("endpoint value does not fit its key")

// CheckValue reports what is wrong with the value of an endpoint's key, nil if
// nothing is. The key alone says which worker it is: a deletion carries no value.
func (l Layout) CheckValue(namespace string, in fleet.Instance, value []byte) error {
	var v struct {
		Component, Endpoint, Namespace string
		LeaseID                        uint64 `json:"lease_id"`
		InstanceID                     uint64 `json:"instance_id"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return fmt.Errorf("decode endpoint value: %w", err)
	}
	id := v.InstanceID
	if l == LayoutComponents {
		id = v.LeaseID
	}
	if v.Namespace != namespace || v.Component != in.Component || v.Endpoint != in.Name || id != in.ID {
		return fmt.Errorf("%w: it is of %q/%q/%q, id %x", ErrMismatch, v.Namespace, v.Component, v.Endpoint, id)
	}
	return nil
}
