// Package fleet is what is known about a Dynamo fleet: which workers are
// registered, what load they report, how well their KV caches are hit, and what
// the program itself did to learn it. Bytes become values elsewhere; here they
// change one Fleet, and readers take a Snapshot.
package fleet

import "strconv"

// Endpoint names an endpoint.
type Endpoint struct {
	Component string
	Name      string
	Namespace string // Dynamo's, where several are watched; empty where it is the only one
}

// String is component/endpoint, as operators write it, behind the namespace where
// several are watched.
func (e Endpoint) String() string {
	if e.Namespace == "" {
		return e.Component + "/" + e.Name
	}
	return e.Namespace + "/" + e.Component + "/" + e.Name
}

// Instance is one worker's registration of one endpoint. Its ID is the worker's
// lease or instance id; all endpoints of one process have the same.
type Instance struct {
	Endpoint
	ID uint64
}

// WorkerID names a worker. A static worker (started without etcd) has no lease:
// it is told apart by the id of its NATS micro replies.
type WorkerID struct {
	Lease  uint64 // 0 for a static worker
	Static string // empty for all others
}

// IsStatic reports whether the worker was started without etcd.
func (id WorkerID) IsStatic() bool { return id.Lease == 0 && id.Static != "" }

// String is the id as in the label worker_id: decimal, as the original wrote it.
func (id WorkerID) String() string {
	if id.IsStatic() {
		return id.Static
	}
	return strconv.FormatUint(id.Lease, 10)
}

// Hex is the id as in Dynamo's own keys, subjects and logs; empty for a static worker.
func (id WorkerID) Hex() string {
	if id.IsStatic() {
		return ""
	}
	return strconv.FormatUint(id.Lease, 16)
}

// Opt is a value that a worker may not have reported. The zero Opt is absent:
// not reported is never zero.
type Opt[T any] struct {
	V  T
	OK bool
}

// Some is a reported value.
func Some[T any](v T) Opt[T] { return Opt[T]{V: v, OK: true} }

// Pointer is the value as encoding/json leaves it out: nil if it is absent.
func (o Opt[T]) Pointer() *T {
	if !o.OK {
		return nil
	}
	return &o.V
}
