package glance

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"dynamo-metrics/internal/expose"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// interval is how often the Fleet is looked at.
const interval = time.Second

// While no page is open a look may be followed by a rest of so many times as long as it
// took, so that a very large fleet costs no more than two per cent of a CPU; but there is
// one in each step of the history. Who asks meanwhile has it looked at.
const rest = 50

// Options say what is looked at, and what people call it.
type Options struct {
	Fleet      *fleet.Fleet
	Namespaces wire.Namespaces
	Version    string
	Model      string        // of workers whose own is not known; may be empty
	Limit      int           // of tracked workers
	Poll       time.Duration // how often workers are asked
	Scrape     time.Duration // how often their own pages are read
	PageIn     time.Duration // how long such a page may take

	Servers  map[string]string // what the program is connected to, by system, without passwords
	Registry string            // what workers register in, as people call it; empty: in nothing
	Watches  []string          // what is watched there
	Instance string            // what the leader holds; empty where there is none
	Gateway  string            // where pushes go, without password; empty: nowhere
	Mock     string            // the command that starts a mock worker here

	Log *slog.Logger // says which problems come and go; nil: none does

	WebFile  string        // what clients must meet is written there; empty: nowhere
	WebWrong func() string // what is wrong with that, so that it is not in force; nil: nothing ever
}

// Glance looks at the Fleet once a second and remembers what it saw. All methods may be
// called at once from any goroutine.
type Glance struct {
	o Options

	mu     sync.Mutex
	born   time.Time // moments are since then
	at     time.Time // of the last cut
	now    moment    // the same
	before moment    // of the cut before
	took   time.Duration
	looks  uint64 // cuts that were made

	rows     []row
	order    []*place // the cut's, sorted
	all      sums
	usesNATS bool
	missing  []string // why the cut may not show the fleet as it is
	noList   bool     // the registry is away, or not known yet
	noPolls  bool     // NATS is
	problems []problem
	webWrong string // as Options.WebWrong
	unread   map[fleet.Instance]fleet.FailedScrapes

	leftOut       leftOut
	leftOutBefore leftOut // of the cut before
	unwritten     int     // rows that the last snapshot had no room for

	places   map[fleet.Endpoint]*place
	rest     *place                 // all those together that there is no room for
	presence map[fleet.WorkerID]int // at how many places a worker has rows
	tracks   int                    // of all places
	departed int                    // workers that have left in the last ten minutes, of all endpoints
	unnoted  moment                 // when one left that there was no room for; 0: none has
	outside  int                    // rows in the cut of workers whose registration is gone
	hits     map[fleet.WorkerID]*hits
	booked   int      // of them in the cut
	memory   []memory // of the program's rules
	flows    [flowCount]flow
	outages  [outageCount]outage
	pushes   pushes
	teller   teller
	events   rate

	clock     clock
	series    series
	ringBytes int64 // of those of all rows
	ringing   int   // rows whose history is kept

	sampled expose.Sample // of the last look for which it was asked
	length  [2]int        // of the last events
	event   [2]*event     // of the cut: without and with the history; nil: nobody has asked
	news    chan struct{} // closed with the next cut
	streams int
	ended   chan struct{} // closed when Run has ended
}

// New makes a Glance and takes a first look.
func New(o Options) *Glance {
	g := &Glance{
		o:        o,
		places:   make(map[fleet.Endpoint]*place),
		rest:     new(place),
		presence: make(map[fleet.WorkerID]int),
		hits:     make(map[fleet.WorkerID]*hits),
		memory:   make([]memory, len(programRules)),
		news:     make(chan struct{}),
		ended:    make(chan struct{}),
		teller:   teller{log: o.Log},
	}
	now := time.Now()
	g.born = now.Add(-tenth)
	g.Look(now)
	return g
}

// Run looks once a second, or less often where that is enough, until ctx ends. Then it
// ends all streams.
func (g *Glance) Run(ctx context.Context) {
	defer close(g.ended)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			if !g.rests(now) {
				g.Look(now)
			}
		case <-ctx.Done():
			return
		}
	}
}

// rests reports whether a look at this moment can wait.
func (g *Glance) rests(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.streams == 0 && now.Before(g.at.Add(min(rest*g.took, step-interval/2))) // ticks are not exact
}

// Look makes a cut at this moment, and tells those who wait for one.
func (g *Glance) Look(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look(now)
}

// refresh makes a cut if the last one is old. Under the lock.
func (g *Glance) refresh() {
	if now := time.Now(); now.Sub(g.at) >= 2*interval {
		g.look(now)
	}
}

func (g *Glance) look(now time.Time) {
	defer func(start time.Time) { g.took = time.Since(start) }(time.Now())
	f := g.o.Fleet
	f.Advance(now)
	g.at, g.before, g.now = now, g.now, span(now.Sub(g.born))
	g.take()
	g.usesNATS = f.IsSynced() && f.UsesNATS() || !f.IsSynced() && !f.Stats.NATS.Disabled()
	g.missing = expose.Away(f)
	g.noList, g.noPolls = !f.Stats.RegistryUp() || !f.IsSynced(), !f.Stats.NATS.Up()
	if g.o.WebWrong != nil {
		g.webWrong = g.o.WebWrong()
	}
	g.unread = f.Diagnostics.FailedScrapes()
	for i, n := range counters(&f.Stats) {
		g.flows[i].take(n)
	}
	g.outages[overNATS].take(&f.Stats.NATSServer, g.usesNATS)
	g.outages[overZMQ].take(&f.Stats.ZMQ, true)
	g.pushes.take(&f.Stats)
	g.events.take(received(&f.Stats), g.now)
	g.judge()
	g.sample()
	g.event = [2]*event{}
	close(g.news)
	g.news = make(chan struct{})
}

func (g *Glance) tally() *stats.Stats { return &g.o.Fleet.Stats }

// ready reports whether the cut shows the fleet as it is.
func (g *Glance) ready() bool { return len(g.missing) == 0 }

// bucket is the number of the bucket of hits that is being filled.
func (g *Glance) bucket() int64 { return int64(g.now.duration() / bucket) }

// received are the messages that say something of load or hits.
func received(t *stats.Stats) (n uint64) {
	for _, k := range []stats.Kind{stats.StatsReply, stats.HitRate, stats.LoadEvent, stats.ForwardPass, stats.Trace} {
		n += t.Messages(k)
	}
	return n
}

// rate is how fast a counter grows: over the last five seconds, since polls come in
// bursts.
type rate struct {
	past  [rateOver + 1]struct{ n, at float64 }
	count int
}

const rateOver = int(step / interval)

func (r *rate) take(n uint64, now moment) {
	copy(r.past[:], r.past[1:])
	r.past[rateOver].n, r.past[rateOver].at = float64(n), now.duration().Seconds()
	r.count = min(r.count+1, len(r.past))
}

func (r *rate) perSecond() float64 {
	first, last := r.past[len(r.past)-r.count], r.past[rateOver]
	if last.at <= first.at {
		return 0
	}
	return (last.n - first.n) / (last.at - first.at)
}
