package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"dynamo-metrics/internal/backoff"
)

const (
	pageSize     = 500 // objects per page, as in Dynamo's own runtime
	watchSeconds = 290 // after which the API server ends a watch, as in Dynamo's own runtime

	listTimeout  = time.Minute      // for one page
	maxObject    = 8 << 20          // bytes of an object and of the list or event around it; etcd allows 1.5 MiB
	healthyWatch = 10 * time.Second // a watch that lasted this long did not fail
)

// Collection is all objects of a resource in a namespace, or those that match a label selector.
type Collection struct {
	Group     string // of the API; empty for the core group
	Version   string
	Namespace string
	Resource  string // plural
	Selector  string // labels; empty: all objects
}

func (c Collection) path() string {
	root := "/apis/" + c.Group
	if c.Group == "" {
		root = "/api"
	}
	return root + "/" + c.Version + "/namespaces/" + c.Namespace + "/" + c.Resource
}

// String returns the collection's name for logs and errors.
func (c Collection) String() string {
	name := c.Resource
	if c.Group != "" {
		name += "." + c.Group
	}
	return name + " in " + c.Namespace
}

// explain adds to an error of the API server its likely cause, which the operator can fix.
func (c Collection) explain(err error) error {
	switch {
	case IsStatus(err, http.StatusForbidden):
		return fmt.Errorf("%w (missing in a Role of namespace %s: {apiGroups: [%s], resources: [%s], verbs: [list, watch]})",
			err, c.Namespace, cmp.Or(c.Group, `""`), c.Resource)
	case IsStatus(err, http.StatusNotFound) && c.Group != "":
		return fmt.Errorf("%w (the cluster has no %s.%s: is their CustomResourceDefinition installed?)", err, c.Resource, c.Group)
	case IsStatus(err, http.StatusUnauthorized):
		return fmt.Errorf("%w (the token is not valid, or no longer)", err)
	}
	return err
}

// Object has what all objects have in common. Other types embed it.
type Object struct {
	Metadata Metadata `json:"metadata"`
}

// Meta returns the object's metadata.
func (o *Object) Meta() *Metadata { return &o.Metadata }

// Metadata is the part of an object's metadata that the program reads. It leaves out
// managedFields, which are nearly half of some objects.
type Metadata struct {
	Name            string            `json:"name,omitempty"`
	Namespace       string            `json:"namespace,omitempty"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	OwnerReferences []Owner           `json:"ownerReferences,omitempty"`
}

// Owner is an object that owns another.
type Owner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// objectPtr is a pointer to an object of type T, for decoding.
type objectPtr[T any] interface {
	*T
	Meta() *Metadata
}

// Handler has the functions that are called for changes of a collection, one at a time.
type Handler[T any] struct {
	OnUpsert      func(*T)                    // the object is new, has changed, or is listed again
	OnDelete      func(*T)                    // the object is gone
	OnSynced      func(names map[string]bool) // the whole collection was listed: objects not in names are gone
	OnDecodeError func(error)                 // an object cannot be decoded; its last valid version stays
	OnState       func(error)                 // nil: the collection is up to date; otherwise why it may not be
}

// ListWatch lists a collection and watches it until ctx ends, and calls a handler for every
// object and every change. It retries after every error and forgets nothing meanwhile. Where it
// cannot resume the watch, it lists again.
func ListWatch[T any, P objectPtr[T]](ctx context.Context, c *Client, collection Collection, handler Handler[T]) {
	w := listWatcher[T, P]{client: c, collection: collection, handler: handler}
	var failures Backoff
	for {
		began := time.Now()
		err := w.listAndWatch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > healthyWatch {
			failures.Reset()
		}
		if !errors.Is(err, errWatchEnded) {
			handler.OnState(collection.explain(err))
		}
		if !backoff.Wait(ctx, failures.Next(err)) {
			return
		}
	}
}

// errWatchEnded means that a watch has ended normally, or that it cannot be resumed.
var errWatchEnded = errors.New("watch ended")

// listWatcher is the state of ListWatch.
type listWatcher[T any, P objectPtr[T]] struct {
	client     *Client
	collection Collection
	handler    Handler[T]
	version    string // the collection's resource version up to which changes were handled; empty: list first
}

// listAndWatch lists the collection if necessary, and watches it until the watch ends.
func (w *listWatcher[T, P]) listAndWatch(ctx context.Context) error {
	doing, err := "watch", error(nil)
	if w.version == "" {
		doing, err = "list", w.list(ctx)
	}
	if err == nil {
		doing, err = "watch", w.watch(ctx)
	}
	if IsStatus(err, http.StatusGone) { // the changes since version are no longer available
		w.version = ""
		return errWatchEnded
	}
	if errors.Is(err, errWatchEnded) {
		return err
	}
	return fmt.Errorf("%s %s: %w", doing, w.collection, err)
}

// list lists the whole collection, page by page.
func (w *listWatcher[T, P]) list(ctx context.Context) error {
	names := make(map[string]bool)
	for next := ""; ; {
		version, more, err := w.page(ctx, next, names)
		if err != nil {
			return err
		}
		if next = more; next == "" {
			w.version = version
			w.handler.OnSynced(names)
			return nil
		}
	}
}

func (w *listWatcher[T, P]) page(ctx context.Context, next string, names map[string]bool) (version, more string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if next != "" {
		query.Set("continue", next)
	}
	response, err := w.client.do(ctx, http.MethodGet, w.collection.path(), w.withSelector(query), nil)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	var meta struct{ ResourceVersion, Continue string }
	body := &boundedReader{Reader: response.Body, left: maxObject}
	err = eachItem(json.NewDecoder(body), &meta, func(item json.RawMessage) {
		body.left = maxObject
		object, err := w.decode(item)
		w.upsert(object, err)
		names[object.Meta().Name] = true // the last valid version of an undecodable object stays
	})
	if err == nil && meta.ResourceVersion == "" {
		err = errors.New("the response is not a list")
	}
	return meta.ResourceVersion, meta.Continue, err
}

func (w *listWatcher[T, P]) withSelector(query url.Values) url.Values {
	if w.collection.Selector != "" {
		query.Set("labelSelector", w.collection.Selector)
	}
	return query
}

// decode decodes an object. If that fails, it returns at least the metadata if possible.
func (w *listWatcher[T, P]) decode(b json.RawMessage) (P, error) {
	object := P(new(T))
	if err := json.Unmarshal(b, object); err != nil {
		var bare Object
		_ = json.Unmarshal(b, &bare)
		object = P(new(T))
		*object.Meta() = bare.Metadata
		return object, err
	}
	if object.Meta().Name == "" {
		return object, errors.New("it has no name")
	}
	return object, nil
}

// upsert passes a decoded object, or the decode error, to the handler.
func (w *listWatcher[T, P]) upsert(object P, err error) {
	if err != nil {
		w.handler.OnDecodeError(fmt.Errorf("decode an object of %s: %w", w.collection, err))
		return
	}
	w.handler.OnUpsert((*T)(object))
}

// eachItem reads a list one item at a time, because the whole list may be large.
func eachItem(d *json.Decoder, meta any, f func(json.RawMessage)) error {
	if err := expectDelim(d, '{'); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		switch key {
		case "metadata":
			err = d.Decode(meta)
		case "items":
			err = eachElement(d, f)
		default:
			var other json.RawMessage
			err = d.Decode(&other)
		}
		if err != nil {
			return err
		}
	}
	return expectDelim(d, '}')
}

func eachElement(d *json.Decoder, f func(json.RawMessage)) error {
	if token, err := d.Token(); err != nil || token == nil { // null is an empty list
		return err
	} else if token != json.Delim('[') {
		return fmt.Errorf("the items are %v, not a list", token)
	}
	for d.More() {
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return err
		}
		f(item)
	}
	return expectDelim(d, ']')
}

func expectDelim(d *json.Decoder, want json.Delim) error {
	token, err := d.Token()
	if err == nil && token != want {
		err = fmt.Errorf("got %v, want %v", token, want)
	}
	return err
}

// watch passes the changes since version to the handler, and updates version, until the watch
// ends.
func (w *listWatcher[T, P]) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := w.client.watchIdle
	stalled := time.AfterFunc(idle, func() { cancel(errWatchEnded) })
	defer stalled.Stop()
	response, err := w.client.do(ctx, http.MethodGet, w.collection.path(), w.withSelector(url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "timeoutSeconds": {strconv.Itoa(watchSeconds)}, "resourceVersion": {w.version},
	}), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	w.handler.OnState(nil)
	body := &boundedReader{Reader: response.Body}
	for d := json.NewDecoder(body); ; {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		body.left = maxObject
		if err := d.Decode(&event); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || context.Cause(ctx) == errWatchEnded {
				return errWatchEnded
			}
			return err
		}
		stalled.Reset(idle)
		if err := w.applyEvent(event.Type, event.Object); err != nil {
			return err
		}
	}
}

// boundedReader fails once left bytes have been read.
type boundedReader struct {
	io.Reader
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("an object of more than %d bytes", maxObject)
	}
	n, err := b.Reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// applyEvent handles one event of a watch.
func (w *listWatcher[T, P]) applyEvent(eventType string, b json.RawMessage) error {
	switch eventType {
	case "ERROR":
		status := parseStatus(b)
		status.Code = cmp.Or(status.Code, http.StatusInternalServerError)
		if status.Code != http.StatusGone {
			w.version = "" // other changes may have been missed
		}
		return status
	case "BOOKMARK":
		var o Object
		if err := json.Unmarshal(b, &o); err == nil && o.Metadata.ResourceVersion != "" {
			w.version = o.Metadata.ResourceVersion
		}
		return nil
	case "ADDED", "MODIFIED", "DELETED":
		object, err := w.decode(b)
		if v := object.Meta().ResourceVersion; v != "" {
			w.version = v
		}
		if eventType == "DELETED" && object.Meta().Name != "" {
			w.handler.OnDelete((*T)(object))
		} else {
			w.upsert(object, err)
		}
	}
	return nil
}
