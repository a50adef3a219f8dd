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
type manner int

const (
	answers  manner = iota // at once
	slowly                 // after three tenths of a second
	lately                 // after twelve seconds
	swallows               // every packet: connections are not made, and those that are bring nothing
	refuses
	accepts // and answers nothing
	stalls  // in the middle of its page
)

// web is a network in memory of workers' pages, each at another host: its id, or where it is
// registered. It is to be used in a synctest bubble.
type web struct {
	t        *testing.T
	fleet    *fleet.Fleet
	network  *memnet.Network
	interval time.Duration

	mu       sync.Mutex
	manners  map[uint64]manner
	read     map[uint64]time.Time // when its page was last read
	dialling int
	most     int           // at once
	longest  time.Duration // of those
	answered time.Duration // the longest that an answer was waited for
	asked    int
	waited   map[time.Time]int // answers that are waited for, by when they began
	idle     map[net.Conn]bool
}

// inWeb runs a test with workers 1 to many, of which the first so many are of a manner.
func inWeb(t *testing.T, many int, interval time.Duration, test func(*web)) {
	inWebWith(t, many, interval, func(*Scraper) {}, test)
}

// inWebWith is inWeb with a Scraper that is changed before it begins.
func inWebWith(t *testing.T, many int, interval time.Duration, change func(*Scraper), test func(*web)) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{
			t: t, fleet: fleet.New(fleet.Target{}, 100_000, true), network: memnet.New(), interval: interval,
			manners: make(map[uint64]manner), read: make(map[uint64]time.Time), idle: make(map[net.Conn]bool), waited: make(map[time.Time]int),
		}
		all := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry)}
		for id := range uint64(many) {
			in := fleet.Instance{Endpoint: ofBackend, ID: 1 + id}
			all.Instances[fmt.Sprint(id)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{Publishes: true}}
		}
		w.fleet.Sync(all)
		server := &http.Server{Handler: w, ConnState: w.state}
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

func (w *web) of(id uint64) manner {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.manners[id]
}

// take has these workers' hosts take to another manner.
func (w *web) take(to manner, ids ...uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.manners[id] = to
		delete(w.read, id)
	}
}

func (w *web) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	id, _ := strconv.ParseUint(host, 10, 64)
	began := time.Now()
	w.mu.Lock()
	w.dialling++
	w.most = max(w.most, w.dialling)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.dialling--
		w.longest = max(w.longest, time.Since(began))
		w.mu.Unlock()
	}()
	switch w.of(id) {
	case swallows:
		<-ctx.Done()
		return nil, ctx.Err()
	case refuses:
		return nil, syscall.ECONNREFUSED
	}
	return w.network.Dial(ctx, network, address)
}

// state hears of the server's connections.
func (w *web) state(c net.Conn, s http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.idle, c)
	if s == http.StateIdle {
		w.idle[c] = true
	}
}

// ServeHTTP is every page.
func (w *web) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	id, _ := strconv.ParseUint(strings.TrimSuffix(r.Host, ":80"), 10, 64)
	w.mu.Lock()
	w.asked++
	began := time.Now()
	w.waited[began]++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waited[began]--
		w.answered = max(w.answered, time.Since(began))
	}()
	switch how := w.of(id); how {
	case slowly, lately:
		select {
		case <-time.After(map[manner]time.Duration{slowly: 300 * time.Millisecond, lately: 12 * time.Second}[how]):
		case <-r.Context().Done(): // it is given up, and not read
			return
		}
	case swallows, accepts:
		stall(to, r)
		return
	case refuses:
		panic(http.ErrAbortHandler)
	case stalls:
		blocks(1)(to, r)
		to.(http.Flusher).Flush()
		stall(to, r)
		return
	}
	blocks(int(id))(to, r)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read[id] = time.Now()
}

// readAt is when a worker's page was last read; zero if it was not since it took to its manner.
func (w *web) readAt(id uint64) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.read[id]
}

// reads looks for a while whether each of the pages that answer at once is read within twice
// the interval, from now on or from when it was last read.
func (w *web) reads(for_ time.Duration) {
	w.t.Helper()
	began := time.Now()
	for time.Since(began) < for_ {
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		for id, m := range w.manners {
			last := w.read[id]
			if last.IsZero() {
				last = began
			}
			if ago := time.Since(last); m == answers && ago > 2*w.interval {
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
