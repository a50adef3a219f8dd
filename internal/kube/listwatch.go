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
	pageSize     = 500 // objects of a page, as Dynamo's own runtime has it
	watchSeconds = 290 // seconds after which the API server ends a watch, likewise

	listTimeout  = time.Minute      // bounds a page
	maxObject    = 8 << 20          // bytes of an object and what is around it; etcd has 1.5 MiB at most
	healthyWatch = 10 * time.Second // a watch that lived so long ended in the way of the world
)

// Collection is all objects of a resource in a namespace, or those with a label.
type Collection struct {
	Group     string // of the API; empty for the core's
	Version   string
	Namespace string
	Resource  string // in the plural
	Selector  string // of labels; empty: all
}

func (c Collection) path() string {
	root := "/apis/" + c.Group
	if c.Group == "" {
		root = "/api"
	}
	return root + "/" + c.Version + "/namespaces/" + c.Namespace + "/" + c.Resource
}

// String is the collection's name for people.
func (c Collection) String() string {
	name := c.Resource
	if c.Group != "" {
		name += "." + c.Group
	}
	return name + " in " + c.Namespace
}

// explain adds to a refusal what the operator can do about it.
func (c Collection) explain(err error) error {
	switch {
	case IsStatus(err, http.StatusForbidden):
		return fmt.Errorf("%w (missing in a Role of namespace %s: {apiGroups: [%s], resources: [%s], verbs: [list, watch]})",
			err, c.Namespace, cmp.Or(c.Group, `""`), c.Resource)
	case IsStatus(err, http.StatusNotFound) && c.Group != "":
		return fmt.Errorf("%w (the cluster has no %s.%s: is their CustomResourceDefinition installed?)", err, c.Resource, c.Group)
	case IsStatus(err, http.StatusUnauthorized):
		return fmt.Errorf("%w (the token is not, or no longer, good)", err)
	}
	return err
}

// Object is what every object has; others embed it.
type Object struct {
	Metadata Metadata `json:"metadata"`
}

// Meta is the object's metadata.
func (o *Object) Meta() *Metadata { return &o.Metadata }

// Metadata is what is read of an object's. managedFields, nearly half of some objects,
// are passed over.
type Metadata struct {
	Name            string            `json:"name,omitempty"`
	Namespace       string            `json:"namespace,omitempty"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	OwnerReferences []Owner           `json:"ownerReferences,omitempty"`
}

// Owner is an object that another belongs to.
type Owner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// kind is an object of type T that is read into by way of a pointer.
type objectPtr[T any] interface {
	*T
	Meta() *Metadata
}

// Follower hears what becomes of a collection. Its functions are called one at a time.
type Handler[T any] struct {
	OnUpsert      func(*T)                    // it is new, or has changed, or perhaps neither
	OnDelete      func(*T)                    // it is gone
	OnSynced      func(names map[string]bool) // the whole collection was Put: what is not in it is gone
	OnDecodeError func(error)                 // an object that cannot be decoded; what was known of it stays
	OnState       func(error)                 // nil: what was heard is all there is; else why it may not be
}

// Follow tells a follower of everything in a collection, and of every change, until ctx
// ends. Whatever breaks, it goes on, and forgets nothing meanwhile: where it cannot
// resume it lists anew.
func ListWatch[T any, P objectPtr[T]](ctx context.Context, c *Client, of Collection, f Handler[T]) {
	s := listWatcher[T, P]{client: c, collection: of, handler: f}
	var failures Backoff
	for {
		began := time.Now()
		err := s.listAndWatch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > healthyWatch {
			failures.Reset()
		}
		if !errors.Is(err, errWatchEnded) {
			f.OnState(of.explain(err))
		}
		if !backoff.Wait(ctx, failures.Next(err)) {
			return
		}
	}
}

// errEnded says that a watch ended as all do, or cannot go on from where it was.
var errWatchEnded = errors.New("watch ended")

// stream is where Follow has come to.
type listWatcher[T any, P objectPtr[T]] struct {
	client     *Client
	collection Collection
	handler    Handler[T]
	version    string // of the collection, up to which all is known; empty: nothing is
}

// round lists the collection if it must, and watches it until that ends.
func (s *listWatcher[T, P]) listAndWatch(ctx context.Context) error {
	doing, err := "watch", error(nil)
	if s.version == "" {
		doing, err = "list", s.list(ctx)
	}
	if err == nil {
		doing, err = "watch", s.watch(ctx)
	}
	if IsStatus(err, http.StatusGone) { // what comes next is not to be had any more
		s.version = ""
		return errWatchEnded
	}
	if errors.Is(err, errWatchEnded) {
		return err
	}
	return fmt.Errorf("%s %s: %w", doing, s.collection, err)
}

// list hands on the whole collection, page by page.
func (s *listWatcher[T, P]) list(ctx context.Context) error {
	names := make(map[string]bool)
	for next := ""; ; {
		version, more, err := s.page(ctx, next, names)
		if err != nil {
			return err
		}
		if next = more; next == "" {
			s.version = version
			s.handler.OnSynced(names)
			return nil
		}
	}
}

func (s *listWatcher[T, P]) page(ctx context.Context, next string, names map[string]bool) (version, more string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if next != "" {
		query.Set("continue", next)
	}
	response, err := s.client.do(ctx, http.MethodGet, s.collection.path(), s.withSelector(query), nil)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	var meta struct{ ResourceVersion, Continue string }
	body := &boundedReader{Reader: response.Body, left: maxObject}
	err = eachItem(json.NewDecoder(body), &meta, func(item json.RawMessage) {
		body.left = maxObject
		object, err := s.decode(item)
		s.upsert(object, err)
		names[object.Meta().Name] = true // what is of no use now stays as it is known
	})
	if err == nil && meta.ResourceVersion == "" {
		err = errors.New("the answer is no list")
	}
	return meta.ResourceVersion, meta.Continue, err
}

func (s *listWatcher[T, P]) withSelector(query url.Values) url.Values {
	if s.collection.Selector != "" {
		query.Set("labelSelector", s.collection.Selector)
	}
	return query
}

// decode reads an object. Where that fails its metadata may still be known.
func (s *listWatcher[T, P]) decode(b json.RawMessage) (P, error) {
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

// put hands on an object that was decoded, or the error.
func (s *listWatcher[T, P]) upsert(object P, err error) {
	if err != nil {
		s.handler.OnDecodeError(fmt.Errorf("decode one of %s: %w", s.collection, err))
		return
	}
	s.handler.OnUpsert((*T)(object))
}

// eachItem reads a list one item at a time, since all of them may be much.
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
		return fmt.Errorf("the items are %v, no list", token)
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
		err = fmt.Errorf("%v where %v should be", token, want)
	}
	return err
}

// watch hands on the changes since the version, and keeps that, until the watch ends.
func (s *listWatcher[T, P]) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := s.client.watchIdle
	stalled := time.AfterFunc(idle, func() { cancel(errWatchEnded) })
	defer stalled.Stop()
	response, err := s.client.do(ctx, http.MethodGet, s.collection.path(), s.withSelector(url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "timeoutSeconds": {strconv.Itoa(watchSeconds)}, "resourceVersion": {s.version},
	}), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	s.handler.OnState(nil)
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
		if err := s.applyEvent(event.Type, event.Object); err != nil {
			return err
		}
	}
}

// bounded is a reader of which no more than left bytes can be read.
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

// apply hands on one event of a watch.
func (s *listWatcher[T, P]) applyEvent(what string, b json.RawMessage) error {
	switch what {
	case "ERROR":
		status := parseStatus(b)
		status.Code = cmp.Or(status.Code, http.StatusInternalServerError)
		if status.Code != http.StatusGone {
			s.version = "" // nobody knows what else was missed
		}
		return status
	case "BOOKMARK":
		var o Object
		if err := json.Unmarshal(b, &o); err == nil && o.Metadata.ResourceVersion != "" {
			s.version = o.Metadata.ResourceVersion
		}
		return nil
	case "ADDED", "MODIFIED", "DELETED":
		object, err := s.decode(b)
		if v := object.Meta().ResourceVersion; v != "" {
			s.version = v
		}
		if what == "DELETED" && object.Meta().Name != "" {
			s.handler.OnDelete((*T)(object))
		} else {
			s.upsert(object, err)
		}
	}
	return nil
}
