package kubetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bookmarkEvery is the interval of bookmarks, which is shorter than in a cluster.
const bookmarkEvery = 200 * time.Millisecond

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	token := s.token
	if s.watchEnd == nil {
		s.watchEnd = make(chan struct{})
	}
	closed := s.watchEnd // read before the checks whether the request may watch
	s.mu.Unlock()
	resource, namespace, name := parsePath(r.URL.Path)
	switch {
	case token != "" && r.Header.Get("Authorization") != "Bearer "+token:
		writeStatus(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	case resource == "" || s.has(s.absent, resource):
		http.NotFound(w, r) // in plain text, like a real server
	case s.has(s.forbidden, resource):
		writeStatus(w, http.StatusForbidden, "Forbidden", fmt.Sprintf(
			`%s is forbidden: User "system:serviceaccount:%s:metrics" cannot %s resource %q in the namespace %q`, resource, namespace, requestVerb(r, name), resource, namespace))
	case name != "":
		s.serveObject(w, r, resource, namespace, name)
	case r.Method == http.MethodPost:
		s.create(w, r, resource, namespace)
	case r.URL.Query().Get("watch") == "true":
		s.watch(w, r, resource, namespace, closed)
	default:
		s.list(w, r, resource, namespace)
	}
}

func (s *Server) has(in map[string]bool, resource string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return in[resource]
}

func requestVerb(r *http.Request, name string) string {
	switch {
	case r.URL.Query().Get("watch") == "true":
		return "watch"
	case r.Method == http.MethodGet && name == "":
		return "list"
	}
	return strings.ToLower(r.Method)
}

// parsePath parses {root}/namespaces/{namespace}/{resource}[/{name}].
func parsePath(path string) (resource, namespace, name string) {
	for plural, root := range resources {
		rest, ok := strings.CutPrefix(path, root+"/namespaces/")
		parts := strings.Split(rest, "/")
		if ok && len(parts) >= 2 && len(parts) <= 3 && parts[1] == plural {
			return plural, parts[0], strings.Join(parts[2:], "")
		}
	}
	return "", "", ""
}

func writeStatus(w http.ResponseWriter, code int, reason, message string) {
	writeJSON(w, code, Object{"kind": "Status", "apiVersion": "v1", "metadata": Object{}, "status": "Failure", "message": message, "reason": reason, "code": code})
}

func writeJSON(w http.ResponseWriter, code int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

// list responds with a page. Its continue token has the version of the list, and the name after
// which the next page begins.
func (s *Server) list(w http.ResponseWriter, r *http.Request, resource, namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	if s.pageSize > 0 {
		limit = s.pageSize
	}
	after, version := "", s.version
	if next := r.URL.Query().Get("continue"); next != "" {
		_, _ = fmt.Sscanf(next, "%d", &version)
		_, after, _ = strings.Cut(next, "/")
		if version < s.compacted {
			writeStatus(w, http.StatusGone, "Expired", "The provided continue parameter is too old to display a consistent list result.")
			return
		}
	}
	var all []Object
	for k, o := range s.objects {
		if strings.HasPrefix(k, objectKey(resource, namespace, "")) && metadataString(o, "name") > after && matchesSelector(o, r.URL.Query().Get("labelSelector")) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return cmp.Compare(metadataString(a, "name"), metadataString(b, "name")) })
	meta := Object{"resourceVersion": strconv.Itoa(version)}
	if limit > 0 && len(all) > limit {
		meta["continue"] = fmt.Sprintf("%d/%s", version, metadataString(all[limit-1], "name"))
		meta["remainingItemCount"] = len(all) - limit
		all = all[:limit]
	}
	writeJSON(w, http.StatusOK, Object{"apiVersion": "v1", "kind": "List", "metadata": meta, "items": append([]Object{}, all...)})
}

// matchesSelector reports whether an object has all labels of an equality-based selector.
func matchesSelector(o Object, selector string) bool {
	meta, _ := o["metadata"].(Object)
	labels, _ := meta["labels"].(Object)
	for part := range strings.SplitSeq(selector, ",") {
		name, value, _ := strings.Cut(part, "=")
		if part != "" && labels[name] != value {
			return false
		}
	}
	return true
}

// watch sends the changes since a version, and bookmarks, until the watch ends.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, resource, namespace string, closed <-chan struct{}) {
	version, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	timeout := time.NewTimer(time.Duration(seconds) * time.Second)
	defer timeout.Stop()
	bookmark := time.NewTicker(bookmarkEvery)
	defer bookmark.Stop()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	send := json.NewEncoder(w)
	for {
		events, last, tooOld, changed := s.changesSince(version, resource, namespace, r.URL.Query().Get("labelSelector"))
		if tooOld {
			_ = send.Encode(Object{"type": "ERROR", "object": Object{"kind": "Status", "apiVersion": "v1", "metadata": Object{}, "status": "Failure",
				"message": fmt.Sprintf("too old resource version: %d (%d)", version, s.compacted), "reason": "Expired", "code": http.StatusGone}})
			return
		}
		for _, e := range events {
			if send.Encode(Object{"type": e.eventType, "object": e.object}) != nil {
				return
			}
		}
		version = last
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-bookmark.C:
			s.bookmark(send, version)
		case <-closed:
			s.bookmark(send, version) // the last event of a watch, as in a cluster
			return
		case <-timeout.C:
			s.bookmark(send, version)
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s *Server) bookmark(send *json.Encoder, version int) {
	_ = send.Encode(Object{"type": "BOOKMARK", "object": Object{"metadata": Object{"resourceVersion": strconv.Itoa(version)}}})
}

// changesSince returns the changes after a version, and a channel that is closed at the next
// one.
func (s *Server) changesSince(version int, resource, namespace, selector string) (events []change, last int, tooOld bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	for _, c := range s.history {
		if c.version > version && c.resource == resource && strings.HasPrefix(c.key, objectKey(resource, namespace, "")) && matchesSelector(c.object, selector) {
			events = append(events, c)
		}
	}
	return events, s.version, version < s.compacted, s.changed
}

// serveObject reads, replaces, applies or deletes an object.
func (s *Server) serveObject(w http.ResponseWriter, r *http.Request, resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.objects[objectKey(resource, namespace, name)]
	var o Object
	if r.Method == http.MethodPut || r.Method == http.MethodPatch {
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil || metadataString(o, "name") != name {
			writeStatus(w, http.StatusBadRequest, "BadRequest", fmt.Sprintf("the object is invalid, or has another name: %v", err))
			return
		}
		o["metadata"].(Object)["namespace"] = namespace
	}
	switch {
	case old == nil && r.Method != http.MethodPatch:
		writeStatus(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", resource, name))
		return
	case r.Method == http.MethodPut && metadataString(o, "resourceVersion") != metadataString(old, "resourceVersion"):
		writeStatus(w, http.StatusConflict, "Conflict", "the object has been modified; please apply your changes to the latest version and try again")
		return
	case r.Method == http.MethodPut:
		s.put(resource, o)
	case r.Method == http.MethodPatch:
		s.apply(resource, old, o)
	case r.Method == http.MethodDelete:
		delete(s.objects, objectKey(resource, namespace, name))
		s.record("DELETED", resource, old)
		writeJSON(w, http.StatusOK, old)
		return
	}
	writeJSON(w, http.StatusOK, s.objects[objectKey(resource, namespace, name)])
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, resource, namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var o Object
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || metadataString(o, "name") == "" {
		writeStatus(w, http.StatusBadRequest, "BadRequest", fmt.Sprintf("the object is invalid, or has no name: %v", err))
		return
	}
	o["metadata"].(Object)["namespace"] = namespace
	k := objectKey(resource, namespace, metadataString(o, "name"))
	if s.objects[k] != nil {
		writeStatus(w, http.StatusConflict, "AlreadyExists", fmt.Sprintf("%s %q already exists", resource, metadataString(o, "name")))
		return
	}
	s.put(resource, o)
	writeJSON(w, http.StatusCreated, s.objects[k])
}

// apply takes a server-side apply as the whole object. A map in spec.data that the apply empties
// is stored as null once, like in a real server.
func (s *Server) apply(resource string, old, o Object) {
	before, after := specData(old), specData(o)
	for name, now := range after {
		had, _ := before[name].(Object)
		if has, ok := now.(Object); ok && len(has) == 0 && len(had) > 0 {
			after[name] = nil
		}
	}
	s.put(resource, o)
}

func specData(o Object) Object {
	spec, _ := o["spec"].(Object)
	d, _ := spec["data"].(Object)
	return d
}
