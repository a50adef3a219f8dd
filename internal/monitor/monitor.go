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

// sampleInterval is how often the Fleet is sampled.
const sampleInterval = time.Second

// idleFactor bounds the cost for a very large fleet to two per cent of a CPU while no stream is
// open: after a sample, the monitor may pause for this many times as long as the sample took.
// Each step of the history has at least one sample, and a request that arrives in a pause takes
// one at once.
const idleFactor = 50

// Options say what to sample, and how to name it in texts.
type Options struct {
	Fleet         *fleet.Fleet
	Namespaces    wire.Namespaces
	Version       string
	Model         string        // model of workers whose own is unknown; may be empty
	Limit         int           // bound on tracked workers
	Poll          time.Duration // interval between stats polls
	Scrape        time.Duration // interval between scrapes of workers' own metrics
	ScrapeTimeout time.Duration // timeout of such a scrape

	Servers  map[string]string // addresses by system, without passwords
	Registry string            // name of the registry in sentences; empty if there is none
	Watches  []string          // prefixes or resources that are watched there
	Instance string            // key or Lease that the leader holds; empty if there is none
	Gateway  string            // the Pushgateway, without password; empty if there is none
	Mock     string            // command that starts a mock worker for this fleet

	Log *slog.Logger // receives raised and withdrawn problems; may be nil

	WebFile  string        // path of the web configuration; empty if there is none
	WebError func() string // why that file is not in force, or ""; may be nil
}

// Monitor samples the Fleet once a second and keeps the history. All methods are safe for
// concurrent use.
type Monitor struct {
	options Options

	mu          sync.Mutex
	start       time.Time // ticks count from here
	sampledAt   time.Time // time of the last sample
	now         tick      // the same time
	previous    tick      // time of the sample before
	sampleTook  time.Duration
	sampleCount uint64 // samples taken so far

	rows           []row
	endpoints      []*endpointStats // those of the last sample, sorted
	overall        aggregate
	usesNATS       bool
	missing        []string // why the last sample may be incomplete or old
	registryDown   bool     // the registry is not connected, or not read yet
	natsDown       bool     // NATS is not connected
	problems       []problem
	webConfigError string // the result of Options.WebError
	failedScrapes  map[fleet.Instance]fleet.FailedScrapes

	leftOut         leftOut
	previousLeftOut leftOut // of the sample before
	unwrittenRows   int     // rows that the last written snapshot had no room for

	byEndpoint         map[fleet.Endpoint]*endpointStats
	overflow           *endpointStats         // stands for all endpoints that there is no room for
	endpointsPerWorker map[fleet.WorkerID]int // number of endpoints at which a worker has rows
	rowCount           int                    // rows at all endpoints
	departureCount     int                    // departures in lostWindow, at all endpoints
	unrecordedAt       tick                   // time of the last departure that there was no room for; 0: none
	unregisteredRows   int                    // rows of workers whose registration is gone
	hits               map[fleet.WorkerID]*workerHits
	hitsUpdated        int         // entries of hits that the last sample updated
	ruleStates         []ruleState // of programRules
	counters           [counterCount]recentCounter
	outages            [outageCount]outage
	pushes             pushCounter
	problemLog         problemLog
	eventRate          rateMeter

	historyClock    historyClock
	history         fleetHistory
	rowHistoryBytes int64 // memory of the histories of all rows
	rowsWithHistory int   // rows that have a history

	lastSample    Sample        // as last returned by LastSample
	renderings    [2]*Rendering // of the last sample, without and with history; nil until requested
	renderingSize [2]int        // of the last renderings, in bytes
	updated       chan struct{} // closed by the next sample
	done          chan struct{} // closed when Run returns
}

// New returns a Monitor that has taken its first sample.
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

// Run samples once a second, or less often where idleFactor allows, until ctx ends. Then it ends
// all streams.
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

// canSkip reports whether a sample at this time is not needed.
func (m *Monitor) canSkip(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats().Streams.Load() == 0 && now.Before(m.sampledAt.Add(min(idleFactor*m.sampleTook, historyStep-sampleInterval/2))) // the ticker is not exact
}

// Sample takes a sample at this time, and wakes the streams.
func (m *Monitor) Sample(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample(now)
}

// refresh takes a sample if the last one is old. The caller holds the lock.
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

// ready reports whether the last sample shows the fleet as it is.
func (m *Monitor) ready() bool { return len(m.missing) == 0 }

// hitBucket returns the number of the current bucket of hits.
func (m *Monitor) hitBucket() int64 { return int64(m.now.duration() / bucket) }

// countLoadMessages counts the messages received that carry loads or hits.
func countLoadMessages(s *stats.Stats) (n uint64) {
	for _, k := range []stats.Kind{stats.StatsReply, stats.HitRate, stats.LoadEvent, stats.ForwardPass, stats.Trace} {
		n += s.Messages(k)
	}
	return n
}

// rateMeter measures how fast a counter grows, over the last five seconds because polls arrive in
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
