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

// manner is how a worker's host takes who asks for its page.
type behavior int

const (
	responds       behavior = iota // at once
	respondsSlowly                 // after three tenths of a second
	respondsLate                   // after twelve seconds
	dropsPackets                   // every packet: connections are not made, and those that are bring nothing
	refuses
	hangs  // and answers nothing
	stalls // in the middle of its page
)

// web is a network in memory of workers' pages, each at another host: its id, or where it is
// registered. It is to be used in a synctest bubble.
type metricsNetwork struct {
	t        *testing.T
	fleet    *fleet.Fleet
	network  *memnet.Network
	interval time.Duration

	mu          sync.Mutex
	behaviors   map[uint64]behavior
	lastRead    map[uint64]time.Time // when its page was last read
	dialing     int
	maxDialing  int           // at once
	longestDial time.Duration // of those
	longestWait time.Duration // the longest that an answer was waited for
	requests    int
	waiting     map[time.Time]int // answers that are waited for, by when they began
	idle        map[net.Conn]bool
}

// inWeb runs a test with workers 1 to many, of which the first so many are of a manner.
func runMetricsNetwork(t *testing.T, many int, interval time.Duration, test func(*metricsNetwork)) {
	runMetricsNetworkWith(t, many, interval, func(*Scraper) {}, test)
}

// inWebWith is inWeb with a Scraper that is changed before it begins.
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
			time.Sleep(time.Second) // in which those who still answer end
		}()
		test(w)
	})
}

func (w *metricsNetwork) behaviorOf(id uint64) behavior {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.behaviors[id]
}

// take has these workers' hosts take to another manner.
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

// state hears of the server's connections.
func (w *metricsNetwork) connState(c net.Conn, s http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.idle, c)
	if s == http.StateIdle {
		w.idle[c] = true
	}
}

// ServeHTTP is every page.
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
		case <-r.Context().Done(): // it is given up, and not read
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

// readAt is when a worker's page was last read; zero if it was not since it took to its manner.
func (w *metricsNetwork) readTime(id uint64) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastRead[id]
}

// reads looks for a while whether each of the pages that answer at once is read within twice
// the interval, from now on or from when it was last read.
func (w *metricsNetwork) checkReads(for_ time.Duration) {
	w.t.Helper()
	began := time.Now()
	for time.Since(began) < for_ {
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		for id, m := range w.behaviors {
			last := w.lastRead[id]
			if last.IsZero() {
				last = began
			}
			if ago := time.Since(last); m == responds && ago > 2*w.interval {
				w.mu.Unlock()
				w.t.Fatalf("after %s the page of worker %d was read %s ago", time.Since(began), id, ago)
			}
		}
		w.mu.Unlock()
	}
}

// shuffled are the ids of all workers in some order.
func shuffled(many int, seed uint64) []uint64 {
	ids := make([]uint64, many)
	for i := range ids {
		ids[i] = uint64(1 + i)
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(many, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids
}
