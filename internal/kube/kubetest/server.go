// Package kubetest is as much of a Kubernetes API server as tests of Dynamo's workers and this
// program need: it lists collections in pages, watches them with bookmarks, takes server-side
// applies as whole objects, and stores Leases. The tests do everything else that a cluster does,
// such as the work of a kubelet. The package is for tests only.
package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Object is a decoded JSON object of the API.
type Object = map[string]any

// The plural names of the resources.
const (
	WorkerMetadata = "dynamoworkermetadatas"
	EndpointSlices = "endpointslices"
	Pods           = "pods"
	Leases         = "leases"
)

// resources has the API path of each resource.
var resources = map[string]string{
	WorkerMetadata: "/apis/nvidia.com/v1alpha1",
	EndpointSlices: "/apis/discovery.k8s.io/v1",
	Pods:           "/api/v1",
	Leases:         "/apis/coordination.k8s.io/v1",
}

// Server is the state of an API server, and an http.Handler. The zero Server has no objects and
// requires no token.
type Server struct {
	mu       sync.Mutex
	objects  map[string]Object // by resource/namespace/name
	version  int
	history  []change      // the changes after the version compacted
	changed  chan struct{} // closed at the next change
	watchEnd chan struct{} // closed to end all watches

	compacted int             // watches cannot start from earlier versions
	token     string          // requests must have it; empty: no token is required
	forbidden map[string]bool // resources
	absent    map[string]bool // resources that the cluster does not have
	requests  []string        // method and URL, in order
	pageSize  int             // objects per page; 0: as requested
}

// change is a watch event.
type change struct {
	version       int
	eventType     string
	resource, key string
	object        Object
}

func objectKey(resource, namespace, name string) string {
	return resource + "/" + namespace + "/" + name
}

// Put creates or replaces an object. Its metadata has its name and namespace.
func (s *Server) Put(resource string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(resource, cloneObject(o))
}

// Delete deletes an object.
func (s *Server) Delete(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[objectKey(resource, namespace, name)]; o != nil {
		delete(s.objects, objectKey(resource, namespace, name))
		s.record("DELETED", resource, o)
	}
}

// Get returns an object; nil if there is none.
func (s *Server) Get(resource, namespace, name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cloneObject(s.objects[objectKey(resource, namespace, name)])
}

// Names returns the names of all objects of a resource, sorted.
func (s *Server) Names(resource, namespace string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.objects {
		if name, ok := strings.CutPrefix(k, objectKey(resource, namespace, "")); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Compact drops the history: watches from an earlier version than the current one get the error
// "too old".
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history, s.compacted = nil, s.version
	s.endWatches()
}

// EndWatches ends all watches, as an API server does after their timeout.
func (s *Server) EndWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endWatches()
}

func (s *Server) endWatches() {
	if s.watchEnd != nil {
		close(s.watchEnd)
	}
	s.watchEnd = nil
}

// RequireToken makes the server respond with 401 to requests with another token. An empty token
// allows all requests.
func (s *Server) RequireToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
	s.endWatches()
}

// Forbid sets whether the server responds with 403 for a resource.
func (s *Server) Forbid(resource string, forbidden bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	setFlag(&s.forbidden, resource, forbidden)
	s.endWatches()
}

// SetAbsent sets whether the server responds with 404 for a resource, as if its definition were
// not installed.
func (s *Server) SetAbsent(resource string, absent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	setFlag(&s.absent, resource, absent)
	s.endWatches()
}

// SetPageSize makes pages shorter than requested.
func (s *Server) SetPageSize(objects int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageSize = objects
}

// Requests returns method, path and query of all requests so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func setFlag(m *map[string]bool, name string, value bool) {
	if *m == nil {
		*m = make(map[string]bool)
	}
	(*m)[name] = value
}

func (s *Server) put(resource string, o Object) {
	eventType, k := "MODIFIED", objectKey(resource, metadataString(o, "namespace"), metadataString(o, "name"))
	meta := o["metadata"].(Object)
	if old := s.objects[k]; old == nil {
		eventType = "ADDED"
		meta["generation"] = 1
	} else {
		n, _ := old["metadata"].(Object)["generation"].(int)
		meta["generation"] = n + 1
	}
	if s.objects == nil {
		s.objects = make(map[string]Object)
	}
	s.objects[k] = o
	s.record(eventType, resource, o)
}

func (s *Server) record(eventType, resource string, o Object) {
	s.version++
	o = cloneObject(o)
	o["metadata"].(Object)["resourceVersion"] = strconv.Itoa(s.version)
	k := objectKey(resource, metadataString(o, "namespace"), metadataString(o, "name"))
	if eventType != "DELETED" {
		s.objects[k] = o
	}
	s.history = append(s.history, change{s.version, eventType, resource, k, o})
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = nil
}

// metadataString returns a string in an object's metadata.
func metadataString(o Object, name string) string {
	meta, _ := o["metadata"].(Object)
	text, _ := meta[name].(string)
	return text
}

// cloneObject copies an object and its metadata. What is below them is never changed.
func cloneObject(o Object) Object {
	if o == nil {
		return nil
	}
	o = maps.Clone(o)
	meta, _ := o["metadata"].(Object)
	meta = maps.Clone(meta)
	if meta == nil {
		meta = Object{}
	}
	o["metadata"] = meta
	return o
}

// Decode decodes objects of the API: one, or a list.
func Decode(b []byte) ([]Object, error) {
	var o Object
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("decode an object: %w", err)
	}
	items, isList := o["items"].([]any)
	if !isList {
		return []Object{o}, nil
	}
	var all []Object
	for _, i := range items {
		item, ok := i.(Object)
		if !ok {
			return nil, fmt.Errorf("an item is a %T", i)
		}
		all = append(all, item)
	}
	return all, nil
}
