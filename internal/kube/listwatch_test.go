package kube

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
)

// thing is an object with a value.
type thing struct {
	Object
	Spec struct{ Data *struct{ Value int } }
}

var things = Collection{Group: "nvidia.com", Version: "v1alpha1", Namespace: "team-a", Resource: "dynamoworkermetadatas"}

func object(name string, value any) kubetest.Object {
	return kubetest.Object{
		"metadata": kubetest.Object{"name": name, "namespace": "team-a", "managedFields": []any{kubetest.Object{"manager": "x"}}},
		"spec":     kubetest.Object{"data": kubetest.Object{"value": value}},
	}
}

// recorder records the calls of a Handler.
type recorder struct {
	t  *testing.T
	mu sync.Mutex

	values       map[string]int
	upserts      int
	lists        int
	decodeErrors []error
	state        error
	states       []error
}

// startListWatch runs ListWatch until the test ends.
func startListWatch(t *testing.T, c *Client, collection Collection) *recorder {
	f := &recorder{t: t, values: make(map[string]int), state: errors.New("not called yet")}
	var running sync.WaitGroup
	ctx := t.Context()
	running.Go(func() {
		ListWatch(ctx, c, collection, Handler[thing]{OnUpsert: f.onUpsert, OnDelete: f.onDelete, OnSynced: f.onSynced, OnDecodeError: f.onDecodeError, OnState: f.onState})
	})
	t.Cleanup(running.Wait)
	return f
}

func (f *recorder) onUpsert(o *thing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.upserts++
	f.values[o.Metadata.Name] = o.Spec.Data.Value
}

func (f *recorder) onDelete(o *thing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.values, o.Metadata.Name)
}

func (f *recorder) onSynced(names map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	maps.DeleteFunc(f.values, func(name string, _ int) bool { return !names[name] })
}

func (f *recorder) onDecodeError(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decodeErrors = append(f.decodeErrors, err)
}

func (f *recorder) onState(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = err
	f.states = append(f.states, err)
}

// waitValues waits until the handler has exactly these values, and the state is good.
func (f *recorder) waitValues(want map[string]int) {
	f.t.Helper()
	f.waitUntil(func() error {
		if !maps.Equal(f.values, want) || f.state != nil {
			return fmt.Errorf("values %v (%v), want %v", f.values, f.state, want)
		}
		return nil
	})
}

// waitError waits until the state is an error that contains text.
func (f *recorder) waitError(text string) {
	f.t.Helper()
	f.waitUntil(func() error {
		if f.state == nil || !strings.Contains(f.state.Error(), text) {
			return fmt.Errorf("the state is %v, want %q", f.state, text)
		}
		return nil
	})
}

func (f *recorder) waitUntil(check func() error) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return check()
	})
}

// serve returns an API server and a client of it.
func serve(t *testing.T) (*kubetest.Server, *Client) {
	s := new(kubetest.Server)
	web := httptest.NewServer(s)
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	return s, newClient(t, web.URL)
}

func newClient(t *testing.T, url string) *Client {
	t.Helper()
	c, err := New(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestListWatchListsPagesThenWatches(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	want := make(map[string]int)
	for i := range 25 {
		name := fmt.Sprintf("w-%02d", i)
		s.Put(kubetest.WorkerMetadata, object(name, i))
		want[name] = i
	}
	s.Put(kubetest.WorkerMetadata, kubetest.Object{"metadata": kubetest.Object{"name": "elsewhere", "namespace": "team-b"}})
	s.SetPageSize(10)
	f := startListWatch(t, c, things)
	f.waitValues(want)
	s.Put(kubetest.WorkerMetadata, object("w-07", 700))
	s.Put(kubetest.WorkerMetadata, object("new", 1))
	s.Delete(kubetest.WorkerMetadata, "team-a", "w-03")
	want["w-07"], want["new"] = 700, 1
	delete(want, "w-03")
	f.waitValues(want)
	requests := s.Requests()
	if lists := slices.DeleteFunc(slices.Clone(requests), func(r string) bool { return strings.Contains(r, "watch=true") }); len(lists) != 3 ||
		!strings.HasSuffix(lists[0], "/dynamoworkermetadatas?limit=500") || !strings.Contains(lists[2], "continue=") {
		t.Errorf("requests %q, want three pages", requests)
	}
}

func TestListWatchResumesFromBookmark(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	s.Put(kubetest.WorkerMetadata, object("a", 1))
	f := startListWatch(t, c, things)
	f.waitValues(map[string]int{"a": 1})
	for i := range 40 { // of another resource: only bookmarks advance the collection's version
		s.Put(kubetest.Pods, kubetest.Object{"metadata": kubetest.Object{"name": fmt.Sprint(i), "namespace": "team-a"}})
	}
	version := s.Get(kubetest.Pods, "team-a", "39")["metadata"].(kubetest.Object)["resourceVersion"].(string)
	testutil.Until(t, func() error {
		s.EndWatches()
		for _, r := range s.Requests() {
			if strings.Contains(r, "watch=true") && strings.Contains(r, "resourceVersion="+version) {
				return nil
			}
		}
		return errors.New("no watch from the last bookmark yet")
	})
	s.Put(kubetest.WorkerMetadata, object("a", 2))
	f.waitValues(map[string]int{"a": 2})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lists != 1 || slices.ContainsFunc(f.states, func(err error) bool { return err != nil }) {
		t.Errorf("%d listings, states %v, want one listing and no error", f.lists, f.states)
	}
}

func TestListWatchRelistsAfterCompaction(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	for _, name := range []string{"a", "b", "c"} {
		s.Put(kubetest.WorkerMetadata, object(name, 1))
	}
	f := startListWatch(t, c, things)
	f.waitValues(map[string]int{"a": 1, "b": 1, "c": 1})
	s.Forbid(kubetest.WorkerMetadata, true) // the watch fails
	f.waitError("403")
	s.Delete(kubetest.WorkerMetadata, "team-a", "b")
	s.Put(kubetest.WorkerMetadata, object("d", 4))
	s.Compact() // the changes meanwhile are no longer available (410)
	s.Forbid(kubetest.WorkerMetadata, false)
	f.waitValues(map[string]int{"a": 1, "c": 1, "d": 4})
}

// TestListWatchRestartsListAfterExpiredPage makes the API server compact between two pages of a
// listing.
func TestListWatchRestartsListAfterExpiredPage(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	var once sync.Once
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("continue") != "" {
			once.Do(func() {
				s.Delete(kubetest.WorkerMetadata, "team-a", "a")
				s.Compact()
			})
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	for _, name := range []string{"a", "b", "c"} {
		s.Put(kubetest.WorkerMetadata, object(name, 1))
	}
	s.SetPageSize(2)
	f := startListWatch(t, newClient(t, web.URL), things)
	f.waitValues(map[string]int{"b": 1, "c": 1})
}

func TestListWatchExplainsAndRetriesDenials(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deny func(s *kubetest.Server, deny bool)
		want string
	}{
		"no rule": {func(s *kubetest.Server, deny bool) { s.Forbid(kubetest.WorkerMetadata, deny) },
			`missing in a Role of namespace team-a: {apiGroups: [nvidia.com], resources: [dynamoworkermetadatas], verbs: [list, watch]}`},
		"no definition": {func(s *kubetest.Server, deny bool) { s.SetAbsent(kubetest.WorkerMetadata, deny) },
			"the cluster has no dynamoworkermetadatas.nvidia.com: is their CustomResourceDefinition installed?"},
		"no token": {func(s *kubetest.Server, deny bool) {
			if deny {
				s.RequireToken("secret")
			} else {
				s.RequireToken("")
			}
		}, "401 Unauthorized: Unauthorized (the token is not valid, or no longer)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, client := serve(t)
			s.Put(kubetest.WorkerMetadata, object("a", 1))
			c.deny(s, true)
			f := startListWatch(t, client, things)
			f.waitError(c.want)
			f.waitError("list dynamoworkermetadatas.nvidia.com in team-a: ")
			c.deny(s, false)
			f.waitValues(map[string]int{"a": 1})
			c.deny(s, true)
			f.waitError(c.want)
			s.Put(kubetest.WorkerMetadata, object("b", 2))
			f.mu.Lock()
			if f.values["a"] != 1 {
				t.Error("a is forgotten while nothing can be read")
			}
			f.mu.Unlock()
			c.deny(s, false)
			f.waitValues(map[string]int{"a": 1, "b": 2})
		})
	}
}

func TestListWatchSurvivesServerOutage(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	web := httptest.NewServer(s)
	address := web.Listener.Addr().String()
	s.Put(kubetest.WorkerMetadata, object("a", 1))
	f := startListWatch(t, newClient(t, web.URL), things)
	f.waitValues(map[string]int{"a": 1})
	s.EndWatches()
	web.CloseClientConnections()
	web.Close()
	f.waitError("connection refused")
	f.mu.Lock()
	if !maps.Equal(f.values, map[string]int{"a": 1}) {
		t.Errorf("values %v while the server is down", f.values)
	}
	f.mu.Unlock()
	s.Put(kubetest.WorkerMetadata, object("b", 2))
	again := httptest.NewUnstartedServer(s)
	again.Listener.Close()
	testutil.Until(t, func() (err error) {
		again.Listener, err = net.Listen("tcp", address)
		return err
	})
	again.Start()
	t.Cleanup(func() { s.EndWatches(); again.CloseClientConnections(); again.Close() })
	f.waitValues(map[string]int{"a": 1, "b": 2})
}

// TestListWatchRestartsIdleWatch sets up a watch whose server has died without closing the
// connection.
func TestListWatchRestartsIdleWatch(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	s.Put(kubetest.WorkerMetadata, object("a", 1))
	var once sync.Once
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dead := false
		if r.URL.Query().Get("watch") != "" {
			once.Do(func() { dead = true })
		}
		if dead {
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	c := newClient(t, web.URL)
	c.watchIdle = 50 * time.Millisecond
	f := startListWatch(t, c, things)
	f.waitValues(map[string]int{"a": 1})
	s.Put(kubetest.WorkerMetadata, object("a", 2))
	f.waitValues(map[string]int{"a": 2})
}

func TestListWatchSkipsUndecodableObject(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	s.Put(kubetest.WorkerMetadata, object("a", 1))
	s.Put(kubetest.WorkerMetadata, object("listed", "no number"))
	s.Put(kubetest.WorkerMetadata, object("z", 3))
	f := startListWatch(t, c, things)
	f.waitValues(map[string]int{"a": 1, "z": 3})
	s.Put(kubetest.WorkerMetadata, object("watched", []any{}))
	s.Put(kubetest.WorkerMetadata, object("z", 4))
	f.waitValues(map[string]int{"a": 1, "z": 4})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.decodeErrors) != 2 {
		t.Errorf("decode errors %v, want two", f.decodeErrors)
	}
}

func TestListWatchRejectsInvalidResponses(t *testing.T) {
	t.Parallel()
	list := `{"metadata":{"resourceVersion":"1"},"items":[]}`
	for name, c := range map[string]struct{ list, watch, want string }{
		"an HTML page":           {`<html>log in</html>`, ``, "invalid character"},
		"nothing":                {``, ``, "EOF"},
		"another object":         {`{"kind":"Pod","metadata":{"name":"a"}}`, ``, "the response is not a list"},
		"items that are no list": {`{"metadata":{"resourceVersion":"1"},"items":{}}`, ``, "the items are"},
		"half a list":            {`{"metadata":{"resourceVersion":"1"},"items":[{"metadata":`, ``, "EOF"},
		"an HTML watch":          {list, `<html>`, "invalid character"},
		"an event without end":   {list, `{"type":"ADDED","object":{"metadata":{"name":"` + strings.Repeat("a", 8<<20), "an object of more than 8388608 bytes"},
		"an item without end":    {`{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"` + strings.Repeat("a", 8<<20), ``, "an object of more than 8388608 bytes"},
		"an error in the watch":  {list, `{"type":"ERROR","object":{"code":500,"message":"etcdserver: no leader"}}`, "500 Internal Server Error: etcdserver: no leader"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("watch") != "" {
					fmt.Fprint(w, c.watch)
				} else {
					fmt.Fprint(w, c.list)
				}
			}))
			t.Cleanup(web.Close)
			f := startListWatch(t, newClient(t, web.URL), things)
			f.waitUntil(func() error {
				for _, err := range f.states {
					if err != nil && strings.Contains(err.Error(), c.want) {
						return nil
					}
				}
				return fmt.Errorf("states %v, want %q", f.states, c.want)
			})
		})
	}
}

func TestListWatchReadsCapturedResponses(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("testdata/list_page1_limit2.json")
	if err != nil {
		t.Fatal(err)
	}
	tooOld, err := os.ReadFile("testdata/watch_too_old.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var requests []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, r.URL.RawQuery)
		switch {
		case r.URL.Query().Get("watch") != "":
			w.Write(tooOld)
		case r.URL.Query().Get("continue") != "":
			fmt.Fprint(w, `{"metadata":{"resourceVersion":"57"},"items":null}`)
		default:
			w.Write(page)
		}
	}))
	t.Cleanup(web.Close)
	var names []string
	var running sync.WaitGroup
	ctx := t.Context()
	c := newClient(t, web.URL)
	running.Go(func() {
		ListWatch(ctx, c, things, Handler[Object]{
			OnUpsert: func(o *Object) {
				mu.Lock()
				defer mu.Unlock()
				names = append(names, o.Metadata.Name+" of "+o.Metadata.OwnerReferences[0].UID)
			},
			OnSynced: func(map[string]bool) {}, OnDelete: func(*Object) {}, OnState: func(error) {},
			OnDecodeError: func(err error) { t.Error(err) },
		})
	})
	t.Cleanup(running.Wait)
	testutil.Until(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		// The 410 in the watch makes ListWatch list again.
		if len(names) < 4 || names[0] != "lab-vllmworker-0 of 11111111-0000-4000-8000-000000000000" || names[2] != names[0] {
			return fmt.Errorf("names %q, requests %q", names, requests)
		}
		return nil
	})
}
