// Package kubetest is as much of a Kubernetes API server as Dynamo's workers and this
// program use: it lists and watches collections in pages and with bookmarks, takes
// server-side applies as whole objects, and keeps Leases. What else a cluster does, the
// kubelet's part among it, its tests do themselves. For tests only.
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

// Object is an object as the API has it.
type Object = map[string]any

// The resources, in the plural.
const (
	WorkerMetadata = "dynamoworkermetadatas"
	EndpointSlices = "endpointslices"
	Pods           = "pods"
	Leases         = "leases"
)

// resources are what there is, as paths have it.
var resources = map[string]string{
	WorkerMetadata: "/apis/nvidia.com/v1alpha1",
	EndpointSlices: "/apis/discovery.k8s.io/v1",
	Pods:           "/api/v1",
	Leases:         "/apis/coordination.k8s.io/v1",
}

// Server is the state of an API server, and an http.Handler. The zero Server is empty
// and asks for no token.
type Server struct {
	mu       sync.Mutex
	objects  map[string]Object // by resource, namespace and name
	version  int
	history  []change      // since compacted
	changed  chan struct{} // closed at the next change
	watchEnd chan struct{} // closed when watches are to end

	compacted int             // versions up to it cannot be watched from
	token     string          // that requests must bear; empty: none
	forbidden map[string]bool // resources
	absent    map[string]bool // resources that the cluster does not know
	requests  []string        // method and URL of each, in the order they came
	pageSize  int             // objects of one; 0: as many as are asked for
}

// change is one event of a watch.
type change struct {
	version       int
	eventType     string
	resource, key string
	object        Object
}

func objectKey(resource, namespace, name string) string {
	return resource + "/" + namespace + "/" + name
}

// Put creates or replaces an object; its name and namespace are in its metadata.
func (s *Server) Put(resource string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(resource, cloneObject(o))
}

// Delete takes an object away.
func (s *Server) Delete(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[objectKey(resource, namespace, name)]; o != nil {
		delete(s.objects, objectKey(resource, namespace, name))
		s.record("DELETED", resource, o)
	}
}

// Get is an object; nil if there is none.
func (s *Server) Get(resource, namespace, name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cloneObject(s.objects[objectKey(resource, namespace, name)])
}

// Names are those of all objects of a resource, sorted.
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

// Compact forgets all history: who watches from an earlier version than that of now is
// told that it is too old.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history, s.compacted = nil, s.version
	s.endWatches()
}

// EndWatches ends all watches, as the API server does after their time.
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

// Require makes it answer 401 to who bears another token; empty: to nobody.
func (s *Server) RequireToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
	s.endWatches()
}

// Forbid makes it answer 403 for a resource, or not any more.
func (s *Server) Forbid(resource string, forbidden bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	setFlag(&s.forbidden, resource, forbidden)
	s.endWatches()
}

// Remove makes it answer 404 for a resource, as where its definition is not installed,
// or not any more.
func (s *Server) SetAbsent(resource string, absent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	setFlag(&s.absent, resource, absent)
	s.endWatches()
}

// Pages makes pages shorter than those that are asked for.
func (s *Server) SetPageSize(objects int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageSize = objects
}

// Requests are method, path and query of all requests that came.
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
	what, k := "MODIFIED", objectKey(resource, metadataString(o, "namespace"), metadataString(o, "name"))
	meta := o["metadata"].(Object)
	if old := s.objects[k]; old == nil {
		what = "ADDED"
		meta["generation"] = 1
	} else {
		n, _ := old["metadata"].(Object)["generation"].(int)
		meta["generation"] = n + 1
	}
	if s.objects == nil {
		s.objects = make(map[string]Object)
	}
	s.objects[k] = o
	s.record(what, resource, o)
}

func (s *Server) record(what, resource string, o Object) {
	s.version++
	o = cloneObject(o)
	o["metadata"].(Object)["resourceVersion"] = strconv.Itoa(s.version)
	k := objectKey(resource, metadataString(o, "namespace"), metadataString(o, "name"))
	if what != "DELETED" {
		s.objects[k] = o
	}
	s.history = append(s.history, change{s.version, what, resource, k, o})
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = nil
}

// metadata is a text of an object's metadata.
func metadataString(o Object, name string) string {
	meta, _ := o["metadata"].(Object)
	text, _ := meta[name].(string)
	return text
}

// copied is a copy of an object down to its metadata; below that nobody changes it.
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

// Decode reads objects of the API: one, or a list.
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
