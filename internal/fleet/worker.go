// Package fleet holds what is known about a Dynamo fleet: which workers are registered, which
// load they report, and how often their KV caches are hit. Other packages decode the
// messages. Here the values change one Fleet, and readers take a Snapshot of it.
package fleet

import "strconv"

// Endpoint is the name of a Dynamo endpoint.
type Endpoint struct {
	Component string
	Name      string
	Namespace string // Dynamo's namespace if several are watched, else empty
}

// String returns component/endpoint, as operators write it. If several namespaces are
// watched, the namespace comes first.
func (e Endpoint) String() string {
	if e.Namespace == "" {
		return e.Component + "/" + e.Name
	}
	return e.Namespace + "/" + e.Component + "/" + e.Name
}

// Instance identifies one worker at one endpoint. ID is the worker's lease id or instance id,
// which is the same at all endpoints of a process.
type Instance struct {
	Endpoint
	ID uint64
}

// WorkerID identifies a worker. A static worker (started without etcd) has no lease. It is
// identified by the id in its NATS micro replies.
type WorkerID struct {
	Lease  uint64 // 0 for a static worker
	Static string // empty for other workers
}

// IsStatic reports whether the worker was started without etcd.
func (id WorkerID) IsStatic() bool { return id.Lease == 0 && id.Static != "" }

// String returns the id as in the label worker_id: decimal, as in the original program.
func (id WorkerID) String() string {
	if id.IsStatic() {
		return id.Static
	}
	return strconv.FormatUint(id.Lease, 10)
}

// Hex returns the id as in Dynamo's own keys, subjects and logs. It is empty for a static
// worker.
func (id WorkerID) Hex() string {
	if id.IsStatic() {
		return ""
	}
	return strconv.FormatUint(id.Lease, 16)
}

// Opt is a value that a worker may not have reported. The zero Opt is absent, which differs
// from a reported zero.
type Opt[T any] struct {
	V  T
	OK bool
}

// Some returns an Opt with a reported value.
func Some[T any](v T) Opt[T] { return Opt[T]{V: v, OK: true} }

// Pointer returns a pointer to the value, or nil if it is absent, so that encoding/json can
// omit it.
func (o Opt[T]) Pointer() *T {
	if !o.OK {
		return nil
	}
	return &o.V
}
