package kube

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/memnet"
)

// requestTimes runs ListWatch for a while against a server with this handler, and returns the time
// of each request since the start. The clock is synctest's.
func requestTimes(t *testing.T, during time.Duration, answer http.HandlerFunc) (at []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		network := memnet.New()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			at = append(at, time.Since(begin))
			mu.Unlock()
			answer(w, r)
		})}
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(network) })
		t.Cleanup(func() { server.Close(); serving.Wait() })
		c, err := NewWithDialer("http://api", network.Dial)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.http.CloseIdleConnections)
		startListWatch(t, c, things)
		time.Sleep(during)
	})
	return at
}

// pauses returns the times between requests.
func pauses(at []time.Duration) (all []time.Duration) {
	for i := range at[1:] {
		all = append(all, at[i+1]-at[i])
	}
	return all
}

func TestBackoffGrowsWhileServerFails(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			got := pauses(requestTimes(t, 10*time.Minute, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
			if n := len(got); n < 10*60/33 || n > 40 {
				t.Fatalf("%d requests in ten minutes, at pauses of %v", n, got)
			}
			last := got[len(got)-1]
			if got[0] < 250*time.Millisecond || got[0] > 600*time.Millisecond || last < 15*time.Second || last > 33*time.Second {
				t.Errorf("pauses from %v to %v, want from half a second to half a minute", got[0], last)
			}
			alike := 0
			for _, p := range got[10:] {
				if p == last {
					alike++
				}
			}
			if alike > 1 {
				t.Errorf("pauses are %v, want no two alike: clients that fail together would retry together", got)
			}
		})
	}
}

func TestBackoffHonorsRetryAfter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   time.Duration
	}{
		"in seconds": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}, 7 * time.Second},
		"by a time": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", time.Now().Add(9*time.Second).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusServiceUnavailable)
		}, 9 * time.Second},
		"in its status": {func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"kind":"Status","message":"the server is starting","code":429,"details":{"retryAfterSeconds":8}}`)
		}, 8 * time.Second},
		"in the watch": {func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"type":"ERROR","object":{"kind":"Status","message":"wait","code":429,"details":{"retryAfterSeconds":6}}}`)
		}, 6 * time.Second},
		"for ever": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(http.StatusTooManyRequests)
		}, time.Minute},
		"before now": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "-5")
			w.WriteHeader(http.StatusTooManyRequests)
		}, 250 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			first := true
			at := requestTimes(t, 90*time.Second, func(w http.ResponseWriter, r *http.Request) {
				watch := r.URL.Query().Get("watch") != ""
				switch {
				case first && (watch || name != "in the watch"):
					first = false
					c.answer(w)
				case watch:
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				default:
					fmt.Fprint(w, `{"metadata":{"resourceVersion":"1"},"items":[]}`)
				}
			})
			if name == "in the watch" {
				at = at[1:] // the listing
			}
			if got := pauses(at)[0]; got < c.want || got > c.want+c.want/10+500*time.Millisecond {
				t.Errorf("retried after %v, want %v", got, c.want)
			}
		})
	}
}

func TestBackoffDeniedRetriesEveryTwoSeconds(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		for _, p := range pauses(requestTimes(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30") // applies only to overload
			w.WriteHeader(code)
		})) {
			if p != 2*time.Second {
				t.Errorf("%d: retried after %v, want 2 s", code, p)
			}
		}
	}
}

// TestListWatchListTimeoutIsMinute serves a page that never ends, although data keep arriving.
func TestListWatchListTimeoutIsMinute(t *testing.T) {
	t.Parallel()
	at := requestTimes(t, 90*time.Second, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"metadata":{"resourceVersion":"1"},"items":[`)
		for backoff.Wait(r.Context(), time.Second) {
			fmt.Fprint(w, `{"metadata":{"name":"a"},"spec":{"data":{"value":1}}},`)
			w.(http.Flusher).Flush()
		}
	})
	if got := pauses(at)[0]; got < 59*time.Second || got > 63*time.Second {
		t.Errorf("retried after %v, want a minute", got)
	}
}
