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

// thing is an object with something in it.
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

// follower is what Follow has told.
type follower struct {
	t  *testing.T
	mu sync.Mutex

	values map[string]int
	puts   int
	lists  int
	bad    []error
	state  error
	states []error
}

// follow runs Follow until the test ends.
func follow(t *testing.T, c *Client, of Collection) *follower {
	f := &follower{t: t, values: make(map[string]int), state: errors.New("nothing heard yet")}
	var running sync.WaitGroup
	ctx := t.Context()
	running.Go(func() {
		Follow(ctx, c, of, Follower[thing]{Put: f.put, Delete: f.delete, Listed: f.listed, Bad: f.isBad, State: f.setState})
	})
	t.Cleanup(running.Wait)
	return f
}

func (f *follower) put(o *thing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts++
	f.values[o.Metadata.Name] = o.Spec.Data.Value
}

func (f *follower) delete(o *thing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.values, o.Metadata.Name)
}

func (f *follower) listed(names map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	maps.DeleteFunc(f.values, func(name string, _ int) bool { return !names[name] })
}

func (f *follower) isBad(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad = append(f.bad, err)
}

func (f *follower) setState(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = err
	f.states = append(f.states, err)
}

// has waits until exactly these values are known, and the collection is read.
func (f *follower) has(want map[string]int) {
	f.t.Helper()
	f.until(func() error {
		if !maps.Equal(f.values, want) || f.state != nil {
			return fmt.Errorf("values %v (%v), want %v", f.values, f.state, want)
		}
		return nil
	})
}

// complains waits until an error with these words is the state.
func (f *follower) complains(words string) {
	f.t.Helper()
	f.until(func() error {
		if f.state == nil || !strings.Contains(f.state.Error(), words) {
			return fmt.Errorf("the state is %v, want %q", f.state, words)
		}
		return nil
	})
}

func (f *follower) until(check func() error) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return check()
	})
}

// serve is an API server and a client of it.
func serve(t *testing.T) (*kubetest.Server, *Client) {
	s := new(kubetest.Server)
	web := httptest.NewServer(s)
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	return s, at(t, web.URL)
}

func at(t *testing.T, url string) *Client {
	t.Helper()
	c, err := At(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACollectionIsListedInPagesAndThenWatched(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	want := make(map[string]int)
	for i := range 25 {
		name := fmt.Sprintf("w-%02d", i)
		s.Put(kubetest.Metadatas, object(name, i))
		want[name] = i
	}
	s.Put(kubetest.Metadatas, kubetest.Object{"metadata": kubetest.Object{"name": "elsewhere", "namespace": "team-b"}})
	s.Pages(10)
	f := follow(t, c, things)
	f.has(want)
	s.Put(kubetest.Metadatas, object("w-07", 700))
	s.Put(kubetest.Metadatas, object("new", 1))
	s.Delete(kubetest.Metadatas, "team-a", "w-03")
	want["w-07"], want["new"] = 700, 1
	delete(want, "w-03")
	f.has(want)
	requests := s.Requests()
	if lists := slices.DeleteFunc(slices.Clone(requests), func(r string) bool { return strings.Contains(r, "watch=true") }); len(lists) != 3 ||
		!strings.HasSuffix(lists[0], "/dynamoworkermetadatas?limit=500") || !strings.Contains(lists[2], "continue=") {
		t.Errorf("requests %q, want three pages", requests)
	}
}

func TestAWatchThatEndsIsResumedFromItsLastBookmark(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	s.Put(kubetest.Metadatas, object("a", 1))
	f := follow(t, c, things)
	f.has(map[string]int{"a": 1})
	for i := range 40 { // of others: only bookmarks say how far the collection has come
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
	s.Put(kubetest.Metadatas, object("a", 2))
	f.has(map[string]int{"a": 2})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lists != 1 || slices.ContainsFunc(f.states, func(err error) bool { return err != nil }) {
		t.Errorf("%d listings, states %v, want one listing and no trouble", f.lists, f.states)
	}
}

func TestWhatWasMissedIsFoundByListingAnew(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	for _, name := range []string{"a", "b", "c"} {
		s.Put(kubetest.Metadatas, object(name, 1))
	}
	f := follow(t, c, things)
	f.has(map[string]int{"a": 1, "b": 1, "c": 1})
	s.Forbid(kubetest.Metadatas, true) // we cannot watch
	f.complains("403")
	s.Delete(kubetest.Metadatas, "team-a", "b")
	s.Put(kubetest.Metadatas, object("d", 4))
	s.Compact() // what happened meanwhile cannot be watched any more (410)
	s.Forbid(kubetest.Metadatas, false)
	f.has(map[string]int{"a": 1, "c": 1, "d": 4})
}

// TestAPageThatComesTooLateHasTheListingBeginAgain lets the API server forget the
// listing between two pages.
func TestAPageThatComesTooLateHasTheListingBeginAgain(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	var once sync.Once
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("continue") != "" {
			once.Do(func() {
				s.Delete(kubetest.Metadatas, "team-a", "a")
				s.Compact()
			})
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	for _, name := range []string{"a", "b", "c"} {
		s.Put(kubetest.Metadatas, object(name, 1))
	}
	s.Pages(2)
	f := follow(t, at(t, web.URL), things)
	f.has(map[string]int{"b": 1, "c": 1})
}

func TestRefusalsSayWhatIsMissingAndAreTriedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse func(s *kubetest.Server, refuse bool)
		words  string
	}{
		"no rule": {func(s *kubetest.Server, no bool) { s.Forbid(kubetest.Metadatas, no) },
			`missing in a Role of namespace team-a: {apiGroups: [nvidia.com], resources: [dynamoworkermetadatas], verbs: [list, watch]}`},
		"no definition": {func(s *kubetest.Server, no bool) { s.Remove(kubetest.Metadatas, no) },
			"the cluster has no dynamoworkermetadatas.nvidia.com: is their CustomResourceDefinition installed?"},
		"no token": {func(s *kubetest.Server, no bool) {
			if no {
				s.Require("secret")
			} else {
				s.Require("")
			}
		}, "401 Unauthorized: Unauthorized (the token is not, or no longer, good)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, client := serve(t)
			s.Put(kubetest.Metadatas, object("a", 1))
			c.refuse(s, true)
			f := follow(t, client, things)
			f.complains(c.words)
			f.complains("list dynamoworkermetadatas.nvidia.com in team-a: ")
			c.refuse(s, false)
			f.has(map[string]int{"a": 1})
			c.refuse(s, true)
			f.complains(c.words)
			s.Put(kubetest.Metadatas, object("b", 2))
			f.mu.Lock()
			if f.values["a"] != 1 {
				t.Error("a is forgotten while nothing can be read")
			}
			f.mu.Unlock()
			c.refuse(s, false)
			f.has(map[string]int{"a": 1, "b": 2})
		})
	}
}

func TestAServerThatIsAwayIsNoEndOfAnything(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	web := httptest.NewServer(s)
	address := web.Listener.Addr().String()
	s.Put(kubetest.Metadatas, object("a", 1))
	f := follow(t, at(t, web.URL), things)
	f.has(map[string]int{"a": 1})
	s.EndWatches()
	web.CloseClientConnections()
	web.Close()
	f.complains("connection refused")
	f.mu.Lock()
	if !maps.Equal(f.values, map[string]int{"a": 1}) {
		t.Errorf("values %v while the server is away", f.values)
	}
	f.mu.Unlock()
	s.Put(kubetest.Metadatas, object("b", 2))
	again := httptest.NewUnstartedServer(s)
	again.Listener.Close()
	testutil.Until(t, func() (err error) {
		again.Listener, err = net.Listen("tcp", address)
		return err
	})
	again.Start()
	t.Cleanup(func() { s.EndWatches(); again.CloseClientConnections(); again.Close() })
	f.has(map[string]int{"a": 1, "b": 2})
}

// TestAWatchThatBringsNothingIsBegunAnew is one whose server has died without a word.
func TestAWatchThatBringsNothingIsBegunAnew(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	s.Put(kubetest.Metadatas, object("a", 1))
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
	c := at(t, web.URL)
	c.idle = 50 * time.Millisecond
	f := follow(t, c, things)
	f.has(map[string]int{"a": 1})
	s.Put(kubetest.Metadatas, object("a", 2))
	f.has(map[string]int{"a": 2})
}

func TestAnObjectOfNoUseHurtsNoOther(t *testing.T) {
	t.Parallel()
	s, c := serve(t)
	s.Put(kubetest.Metadatas, object("a", 1))
	s.Put(kubetest.Metadatas, object("listed", "no number"))
	s.Put(kubetest.Metadatas, object("z", 3))
	f := follow(t, c, things)
	f.has(map[string]int{"a": 1, "z": 3})
	s.Put(kubetest.Metadatas, object("watched", []any{}))
	s.Put(kubetest.Metadatas, object("z", 4))
	f.has(map[string]int{"a": 1, "z": 4})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.bad) != 2 {
		t.Errorf("bad objects: %v, want two", f.bad)
	}
}

func TestAnswersThatAreNoneAreErrors(t *testing.T) {
	t.Parallel()
	list := `{"metadata":{"resourceVersion":"1"},"items":[]}`
	for name, c := range map[string]struct{ list, watch, words string }{
		"a page of something":    {`<html>log in</html>`, ``, "invalid character"},
		"nothing":                {``, ``, "EOF"},
		"another object":         {`{"kind":"Pod","metadata":{"name":"a"}}`, ``, "the answer is no list"},
		"items that are none":    {`{"metadata":{"resourceVersion":"1"},"items":{}}`, ``, "the items are"},
		"half a list":            {`{"metadata":{"resourceVersion":"1"},"items":[{"metadata":`, ``, "EOF"},
		"a watch of something":   {list, `<html>`, "invalid character"},
		"an event without end":   {list, `{"type":"ADDED","object":{"metadata":{"name":"` + strings.Repeat("a", 8<<20), "an object of more than 8388608 bytes"},
		"an item without end":    {`{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"` + strings.Repeat("a", 8<<20), ``, "an object of more than 8388608 bytes"},
		"an error in the stream": {list, `{"type":"ERROR","object":{"code":500,"message":"etcdserver: no leader"}}`, "500 Internal Server Error: etcdserver: no leader"},
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
			f := follow(t, at(t, web.URL), things)
			f.until(func() error {
				for _, err := range f.states {
					if err != nil && strings.Contains(err.Error(), c.words) {
						return nil
					}
				}
				return fmt.Errorf("states %v, want %q", f.states, c.words)
			})
		})
	}
}

func TestCapturedAnswersAreRead(t *testing.T) {
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
	var asked []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.RawQuery)
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
	c := at(t, web.URL)
	running.Go(func() {
		Follow(ctx, c, things, Follower[Object]{
			Put: func(o *Object) {
				mu.Lock()
				defer mu.Unlock()
				names = append(names, o.Metadata.Name+" of "+o.Metadata.OwnerReferences[0].UID)
			},
			Listed: func(map[string]bool) {}, Delete: func(*Object) {}, State: func(error) {},
			Bad: func(err error) { t.Error(err) },
		})
	})
	t.Cleanup(running.Wait)
	testutil.Until(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		// 410 in the watch has it list anew.
		if len(names) < 4 || names[0] != "lab-vllmworker-0 of 11111111-0000-4000-8000-000000000000" || names[2] != names[0] {
			return fmt.Errorf("names %q, requests %q", names, asked)
		}
		return nil
	})
}
