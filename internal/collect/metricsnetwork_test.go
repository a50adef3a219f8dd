package collect

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/memnet"
)

// behavior is how a worker's host responds to scrapes.
type behavior int

const (
	responds       behavior = iota // at once
	respondsSlowly                 // after 0.3 s
	respondsLate                   // after 12 s
	dropsPackets                   // no connection is made, and open ones bring nothing
	refuses
	hangs  // accepts connections but does not respond
	stalls // in the middle of the response
)

// metricsNetwork is a network in memory with the metrics of workers. Each worker has its own
// host: its id, or the transport address of its registration. It must be used in a synctest bubble.
type metricsNetwork struct {
	t        *testing.T
	fleet    *fleet.Fleet
	network  *memnet.Network
	interval time.Duration

	mu          sync.Mutex
	behaviors   map[uint64]behavior
	lastRead    map[uint64]time.Time // when a worker's metrics were last read completely
	dialing     int
	maxDialing  int // the most at the same time
	longestDial time.Duration
	longestWait time.Duration // for a response
	requests    int
	waiting     map[time.Time]int // the number of responses in progress, by start time
	idle        map[net.Conn]bool
}

// runMetricsNetwork runs a test with workers 1 to many.
func runMetricsNetwork(t *testing.T, many int, interval time.Duration, test func(*metricsNetwork)) {
	runMetricsNetworkWith(t, many, interval, func(*Scraper) {}, test)
}

// runMetricsNetworkWith is runMetricsNetwork with a changed Scraper.
func runMetricsNetworkWith(t *testing.T, many int, interval time.Duration, change func(*Scraper), test func(*metricsNetwork)) {
	synctest.Test(t, func(t *testing.T) {
		w := &metricsNetwork{
			t: t, fleet: fleet.New(fleet.Target{}, 100_000, true), network: memnet.New(), interval: interval,
			behaviors: make(map[uint64]behavior), lastRead: make(map[uint64]time.Time), idle: make(map[net.Conn]bool), waiting: make(map[time.Time]int),
		}
		all := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry)}
		for id := range uint64(many) {
			in := fleet.Instance{Endpoint: backendEndpoint, ID: 1 + id}
			all.Instances[fmt.Sprint(id)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{Publishes: true}}
		}
		w.fleet.Sync(all)
		server := &http.Server{Handler: w, ConnState: w.connState}
		go server.Serve(w.network)
		s := &Scraper{
			Fleet: w.fleet, Namespaces: "dynamo", Interval: interval, Log: slog.New(slog.DiscardHandler), dial: w.dial,
			URL: func(p fleet.ScrapeTarget) string {
				return fmt.Sprintf("http://%s:80/metrics", cmp.Or(p.Transport, fmt.Sprint(p.ID)))
			},
		}
		change(s)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		running.Go(func() {
			for ctx.Err() == nil {
				w.fleet.Advance(time.Now())
				time.Sleep(100 * time.Millisecond)
			}
		})
		defer func() {
			stop()
			running.Wait()
			server.Close()
			w.network.Close()
			time.Sleep(time.Second) // until the handlers in progress have ended
		}()
		test(w)
	})
}

func (w *metricsNetwork) behaviorOf(id uint64) behavior {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.behaviors[id]
}

// setBehavior sets how the hosts of these workers respond.
func (w *metricsNetwork) setBehavior(to behavior, ids ...uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.behaviors[id] = to
		delete(w.lastRead, id)
	}
}

func (w *metricsNetwork) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	id, _ := strconv.ParseUint(host, 10, 64)
	began := time.Now()
	w.mu.Lock()
	w.dialing++
	w.maxDialing = max(w.maxDialing, w.dialing)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.dialing--
		w.longestDial = max(w.longestDial, time.Since(began))
		w.mu.Unlock()
	}()
	switch w.behaviorOf(id) {
	case dropsPackets:
		<-ctx.Done()
		return nil, ctx.Err()
	case refuses:
		return nil, syscall.ECONNREFUSED
	}
	return w.network.Dial(ctx, network, address)
}

// connState follows the state of the server's connections.
func (w *metricsNetwork) connState(c net.Conn, s http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.idle, c)
	if s == http.StateIdle {
		w.idle[c] = true
	}
}

// ServeHTTP responds with the metrics of the worker that the request's host names.
func (w *metricsNetwork) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	id, _ := strconv.ParseUint(strings.TrimSuffix(r.Host, ":80"), 10, 64)
	w.mu.Lock()
	w.requests++
	began := time.Now()
	w.waiting[began]++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waiting[began]--
		w.longestWait = max(w.longestWait, time.Since(began))
	}()
	switch how := w.behaviorOf(id); how {
	case respondsSlowly, respondsLate:
		select {
		case <-time.After(map[behavior]time.Duration{respondsSlowly: 300 * time.Millisecond, respondsLate: 12 * time.Second}[how]):
		case <-r.Context().Done(): // the client has given up
			return
		}
	case dropsPackets, hangs:
		hang(to, r)
		return
	case refuses:
		panic(http.ErrAbortHandler)
	case stalls:
		blocksHandler(1)(to, r)
		to.(http.Flusher).Flush()
		hang(to, r)
		return
	}
	blocksHandler(int(id))(to, r)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastRead[id] = time.Now()
}

// readTime returns when a worker's metrics were last read; zero if not since its behavior was
// set.
func (w *metricsNetwork) readTime(id uint64) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastRead[id]
}

// checkReads checks, for a while, that the metrics of each worker that responds are read at
// least every two intervals, counted from the start of the check or from the last read.
func (w *metricsNetwork) checkReads(duration time.Duration) {
	w.t.Helper()
	began := time.Now()
	for time.Since(began) < duration {
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		for id, m := range w.behaviors {
			last := w.lastRead[id]
			if last.IsZero() {
				last = began
			}
			if ago := time.Since(last); m == responds && ago > 2*w.interval {
				w.mu.Unlock()
				w.t.Fatalf("after %s, the last read of worker %d was %s ago", time.Since(began), id, ago)
			}
		}
		w.mu.Unlock()
	}
}

// shuffled returns the ids of all workers in random order.
func shuffled(many int, seed uint64) []uint64 {
	ids := make([]uint64, many)
	for i := range ids {
		ids[i] = uint64(1 + i)
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(many, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids
}
