package monitor

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// interval is how often the Fleet is looked at.
const sampleInterval = time.Second

// While no page is open a look may be followed by a rest of so many times as long as it
// took, so that a very large fleet costs no more than two per cent of a CPU; but there is
// one in each step of the history. Who asks meanwhile has it looked at.
const idleFactor = 50

// Options say what is looked at, and what people call it.
type Options struct {
	Fleet         *fleet.Fleet
	Namespaces    wire.Namespaces
	Version       string
	Model         string        // of workers whose own is not known; may be empty
	Limit         int           // of tracked workers
	Poll          time.Duration // how often workers are asked
	Scrape        time.Duration // how often their own pages are read
	ScrapeTimeout time.Duration // how long such a page may take

	Servers  map[string]string // what the program is connected to, by system, without passwords
	Registry string            // what workers register in, as people call it; empty: in nothing
	Watches  []string          // what is watched there
	Instance string            // what the leader holds; empty where there is none
	Gateway  string            // where pushes go, without password; empty: nowhere
	Mock     string            // the command that starts a mock worker here

	Log *slog.Logger // says which problems come and go; nil: none does

	WebFile  string        // what clients must meet is written there; empty: nowhere
	WebError func() string // what is wrong with that, so that it is not in force; nil: nothing ever
}

// Glance looks at the Fleet once a second and remembers what it saw. All methods may be
// called at once from any goroutine.
type Monitor struct {
	options Options

	mu          sync.Mutex
	start       time.Time // moments are since then
	sampledAt   time.Time // of the last cut
	now         tick      // the same
	previous    tick      // of the cut before
	sampleTook  time.Duration
	sampleCount uint64 // cuts that were made

	rows           []row
	endpoints      []*endpointStats // the cut's, sorted
	overall        aggregate
	usesNATS       bool
	missing        []string // why the cut may not show the fleet as it is
	registryDown   bool     // the registry is away, or not known yet
	natsDown       bool     // NATS is
	problems       []problem
	webConfigError string // as Options.WebWrong
	failedScrapes  map[fleet.Instance]fleet.FailedScrapes

	leftOut         leftOut
	previousLeftOut leftOut // of the cut before
	unwrittenRows   int     // rows that the last snapshot had no room for

	byEndpoint         map[fleet.Endpoint]*endpointStats
	overflow           *endpointStats         // all those together that there is no room for
	endpointsPerWorker map[fleet.WorkerID]int // at how many places a worker has rows
	rowCount           int                    // of all places
	departureCount     int                    // workers that have left in the last ten minutes, of all endpoints
	unrecordedAt       tick                   // when one left that there was no room for; 0: none has
	unregisteredRows   int                    // rows in the cut of workers whose registration is gone
	hits               map[fleet.WorkerID]*workerHits
	hitsUpdated        int         // of them in the cut
	ruleStates         []ruleState // of the program's rules
	counters           [counterCount]recentCounter
	outages            [outageCount]outage
	pushes             pushCounter
	problemLog         problemLog
	eventRate          rateMeter

	historyClock    historyClock
	history         fleetHistory
	rowHistoryBytes int64 // of those of all rows
	rowsWithHistory int   // rows whose history is kept

	lastSample    Sample        // of the last look for which it was asked
	renderingSize [2]int        // of the last renderings, in bytes
	renderings    [2]*Rendering // of the last sample: without and with the history; nil: not made
	updated       chan struct{} // closed with the next cut
	done          chan struct{} // closed when Run has ended
}

// New makes a Glance and takes a first look.
func New(o Options) *Monitor {
	m := &Monitor{
		options:            o,
		byEndpoint:         make(map[fleet.Endpoint]*endpointStats),
		overflow:           new(endpointStats),
		endpointsPerWorker: make(map[fleet.WorkerID]int),
		hits:               make(map[fleet.WorkerID]*workerHits),
		ruleStates:         make([]ruleState, len(programRules)),
		updated:            make(chan struct{}),
		done:               make(chan struct{}),
		problemLog:         problemLog{log: o.Log},
	}
	now := time.Now()
	m.start = now.Add(-tickLength)
	m.Sample(now)
	return m
}

// Run looks once a second, or less often where that is enough, until ctx ends. Then it
// ends all streams.
func (m *Monitor) Run(ctx context.Context) {
	defer close(m.done)
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			if !m.canSkip(now) {
				m.Sample(now)
			}
		case <-ctx.Done():
			return
		}
	}
}

// rests reports whether a look at this moment can wait.
func (m *Monitor) canSkip(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats().Streams.Load() == 0 && now.Before(m.sampledAt.Add(min(idleFactor*m.sampleTook, historyStep-sampleInterval/2))) // ticks are not exact
}

// Look makes a cut at this moment, and tells those who wait for one.
func (m *Monitor) Sample(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample(now)
}

// refresh makes a cut if the last one is old. Under the lock.
func (m *Monitor) refresh() {
	if now := time.Now(); now.Sub(m.sampledAt) >= 2*sampleInterval {
		m.sample(now)
	}
}

func (m *Monitor) sample(now time.Time) {
	defer func(start time.Time) { m.sampleTook = time.Since(start) }(time.Now())
	f := m.options.Fleet
	f.Advance(now)
	m.sampledAt, m.previous, m.now = now, m.now, ticks(now.Sub(m.start))
	m.build()
	m.usesNATS = f.IsSynced() && f.UsesNATS() || !f.IsSynced() && !f.Stats.NATS.Disabled()
	m.missing = Missing(f)
	m.registryDown, m.natsDown = !f.Stats.RegistryUp() || !f.IsSynced(), !f.Stats.NATS.Up()
	if m.options.WebError != nil {
		m.webConfigError = m.options.WebError()
	}
	m.failedScrapes = f.Diagnostics.FailedScrapes()
	for i, n := range readCounters(&f.Stats) {
		m.counters[i].update(n)
	}
	m.outages[outageNATS].update(&f.Stats.NATSServer, m.usesNATS)
	m.outages[outageZMQ].update(&f.Stats.ZMQ, true)
	m.pushes.update(&f.Stats)
	m.eventRate.observe(countLoadMessages(&f.Stats), m.now)
	m.evaluate()
	m.recordHistory()
	m.renderings = [2]*Rendering{}
	close(m.updated)
	m.updated = make(chan struct{})
}

func (m *Monitor) stats() *stats.Stats { return &m.options.Fleet.Stats }

// ready reports whether the cut shows the fleet as it is.
func (m *Monitor) ready() bool { return len(m.missing) == 0 }

// bucket is the number of the bucket of hits that is being filled.
func (m *Monitor) hitBucket() int64 { return int64(m.now.duration() / bucket) }

// received are the messages that say something of load or hits.
func countLoadMessages(t *stats.Stats) (n uint64) {
	for _, k := range []stats.Kind{stats.StatsReply, stats.HitRate, stats.LoadEvent, stats.ForwardPass, stats.Trace} {
		n += t.Messages(k)
	}
	return n
}

// rate is how fast a counter grows: over the last five seconds, since polls come in
// bursts.
type rateMeter struct {
	past  [rateSamples + 1]struct{ n, at float64 }
	count int
}

const rateSamples = int(historyStep / sampleInterval)

func (r *rateMeter) observe(n uint64, now tick) {
	copy(r.past[:], r.past[1:])
	r.past[rateSamples].n, r.past[rateSamples].at = float64(n), now.duration().Seconds()
	r.count = min(r.count+1, len(r.past))
}

func (r *rateMeter) perSecond() float64 {
	first, last := r.past[len(r.past)-r.count], r.past[rateSamples]
	if last.at <= first.at {
		return 0
	}
	return (last.n - first.n) / (last.at - first.at)
}
