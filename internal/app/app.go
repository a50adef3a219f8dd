// Package app is the metrics program: its flags, and the goroutines that they start. It is a
// package of its own so that cmd/devstack can run it in the same process as its servers.
package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/discovery"
	"dynamo-metrics/internal/dynlog"
	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/leader"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/web"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
)

// Main runs the program until ctx ends and returns its exit code.
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if p, rest := findSubcommand(args); p != nil {
		return p.run(rest, getenv, stdout, stderr)
	}
	var c config
	return cli.Run("metrics", getenv, stderr,
		func() (ended bool, err error) { c, ended, err = parse(args, getenv, stdout); return ended, err },
		func(log *slog.Logger) error {
			err := run(ctx, c, getenv, log)
			if err == nil {
				log.Info("Stopped")
			}
			return err
		})
}

// run creates everything and starts the loops that work on it. The registration outlives the
// work, so that this program is still the leader during its last push.
func run(ctx context.Context, c config, getenv func(string) string, log *slog.Logger) error {
	for _, w := range c.warnings {
		log.Warn(w)
	}
	listener, err := c.listen(log)
	if err != nil {
		return err
	}
	f := fleet.New(c.target, c.maxWorkers, c.hasRegistry())
	f.Advance(time.Now())
	c.markUsed(&f.Stats)
	f.Stats.LogDropped = func() uint64 { return dynlog.Dropped(log) }
	metrics := newMetrics(c, f)

	g, ctx := errgroup.WithContext(ctx)
	registered, release := context.WithCancel(context.WithoutCancel(ctx))
	if c.etcdServers() != "" {
		g.Go(func() error { return runEtcd(registered, c, f, getenv, log) })
	}
	if c.discovery == discoveryKubernetes {
		g.Go(func() error { return runKubernetes(registered, c, f, log) })
	}
	if c.discovery == discoveryFiles {
		files := discovery.Files{Root: c.files, Namespaces: c.namespaces, Fleet: f, State: &f.Stats.Files, Log: dynlog.Target(log, "files")}
		g.Go(func() error { return files.Watch(registered) })
	}
	g.Go(func() error {
		defer release()
		work, ctx := errgroup.WithContext(ctx)
		work.Go(func() error { advanceClock(ctx, f, c.maxWorkers, log); return nil })
		work.Go(func() error { return collectAll(ctx, c, f, getenv, log) })
		work.Go(func() error { collect.WatchEventPlane(ctx, f, log); return nil })
		workerLog := &discovery.WorkerLog{Fleet: f, Namespaces: c.namespaces, Poll: c.pollInterval, Log: log}
		work.Go(func() error { workerLog.Run(ctx); return nil })
		if c.scrape.mode != scrapeNone {
			work.Go(func() error { return c.scraper(f, log).Run(ctx) })
		}
		mon := newMonitor(c, f, log) // problems are logged even if nothing is served
		work.Go(func() error { mon.Run(ctx); return nil })
		if listener != nil {
			httpLog := dynlog.Target(log, "http")
			work.Go(func() error { return web.Serve(ctx, listener, c.handler(f, metrics, mon, httpLog), c.web, httpLog) })
		}
		if c.push {
			work.Go(func() error { exposition.Push(ctx, c.pushgateway, metrics, &f.Stats, log); return nil })
		}
		return work.Wait()
	})
	return g.Wait()
}

// markUsed records which servers the program uses.
func (c config) markUsed(t *stats.Stats) {
	t.NATS.MarkUsed()
	t.NATSServer.MarkUsed()
	if c.natsServers() == "" {
		t.NATS.Disable()
	}
	switch {
	case c.discovery == discoveryFiles:
		t.Files.MarkUsed()
	case c.discovery == discoveryKubernetes:
		t.Kubernetes.MarkUsed()
	case c.etcdServers() != "":
		t.Etcd.MarkUsed()
	}
	if !c.hasUniqueInstance() {
		t.ActsAsLeader.Store(true) // there is no leader election
	}
}

// handler returns the handler of all paths.
func (c config) handler(f *fleet.Fleet, metrics *exposition.Metrics, mon *monitor.Monitor, log *slog.Logger) http.Handler {
	return web.Handler(web.Options{Fleet: f, Namespaces: c.namespaces, Monitor: mon, Metrics: metrics,
		WorkerMetricsURL: c.workerMetricsURL, Profiles: c.pprof, Log: log})
}

// runEtcd watches the etcd registry and holds the unique instance's key.
func runEtcd(ctx context.Context, c config, f *fleet.Fleet, getenv func(string) string, log *slog.Logger) error {
	etcd := dynlog.Target(log, "etcd")
	endpoints, err := connect.NewEtcdEndpoints(c.etcdServers(), getenv, etcd)
	if err != nil {
		return err
	}
	registry := discovery.Etcd{Endpoints: endpoints, Namespaces: c.namespaces, Fleet: f, Log: etcd, MaxWorkers: c.maxWorkers}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return registry.Watch(ctx) })
	key := leader.EtcdKey{Endpoints: endpoints, Namespaces: c.namespaces, Stats: &f.Stats, Log: log, Lost: registry.RequestRelist}
	g.Go(func() error { return key.Hold(ctx, instanceValue(c), c.standby) })
	return g.Wait()
}

// instanceValue returns the value that the original wrote into its key, with the name of this
// host. Programs do not read it: it is there for people.
func instanceValue(c config) []byte {
	host, _ := os.Hostname()
	value, _ := json.MarshalIndent(struct { // strings only, so it cannot fail
		Component string `json:"component_name"`
		Endpoint  string `json:"endpoint_name"`
		Model     string `json:"model_name,omitempty"`
		Host      string `json:"host,omitempty"`
	}{c.target.Component, c.target.Name, c.modelName, host}, "", "  ")
	return value
}

// collectAll polls the workers and receives events, over NATS and ZeroMQ independently.
func collectAll(ctx context.Context, c config, f *fleet.Fleet, getenv func(string) string, log *slog.Logger) error {
	events := collect.NewEvents(f, c.namespaces, log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return events.ZMQ(ctx, c.brokers, collect.MaxZMQSubscriptions(c.maxWorkers, maxOpenFiles()))
	})
	g.Go(func() error { return collectNATS(ctx, c, f, events, getenv, log) })
	return g.Wait()
}

func collectNATS(ctx context.Context, c config, f *fleet.Fleet, events *collect.Events, getenv func(string) string, log *slog.Logger) error {
	poller := &collect.Poller{Fleet: f, Namespaces: c.namespaces, Interval: c.pollInterval, Log: log, PollNow: make(chan struct{}, 1)}
	pollNow := func() {
		select {
		case poller.PollNow <- struct{}{}:
		default:
		}
	}
	if c.natsServers() == "" {
		return poller.Run(ctx)
	}
	options, err := c.natsTLS.Options()
	if err != nil {
		return err
	}
	access := events.Permissions()
	access.OnUp(pollNow) // after an outage the loads are old
	l2c := &exposition.L2C{Fleet: f, Namespace: string(c.namespaces), Log: log}
	poller.Permissions = access
	poller.OnLoads = func() {
		if f.Stats.ActsAsLeader.Load() {
			poller.Publish(wire.L2CSubjects(c.namespaces), l2c.Publish)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	if c.standby { // so that the first l2c event is published at once
		g.Go(func() error { onTakeover(ctx, &f.Stats.ActsAsLeader, pollNow); return nil })
	}
	hooks := connect.NATSHooks{StatusChanged: access.SetConnected, Denied: access.RecordDenial,
		ConnectError: func(err error) { f.Stats.NATS.SetError(err.Error()) }, AttemptFailed: func() { f.Stats.CountFailure(stats.PeerNATS) }}
	g.Go(func() error {
		return connect.RunNATS(ctx, c.nats, getenv, dynlog.Target(log, "nats"), hooks, func(ctx context.Context, conn *nats.Conn) error {
			l2c.Conn = conn
			return collectOverConn(ctx, conn, events, poller)
		}, options...)
	})
	return g.Wait()
}

// collectOverConn polls the workers and receives events over one connection.
func collectOverConn(ctx context.Context, conn *nats.Conn, events *collect.Events, poller *collect.Poller) error {
	if err := poller.Listen(conn); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	// The first poll makes the program ready, so the subscriptions must exist by then.
	listening := make(chan struct{})
	g.Go(func() error { return events.NATS(ctx, conn, func() { close(listening) }) })
	g.Go(func() error {
		select {
		case <-listening:
		case <-ctx.Done():
		}
		return poller.Run(ctx)
	})
	return g.Wait()
}

// onTakeover calls f whenever this program becomes the leader of its namespace.
func onTakeover(ctx context.Context, unique *stats.TimedFlag, f func()) {
	for ctx.Err() == nil {
		unique.Wait(ctx, false)
		unique.Wait(ctx, true)
		f()
	}
}

// listen opens the listener, or returns nil if the program does not serve.
func (c config) listen(log *slog.Logger) (net.Listener, error) {
	if c.address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics (--host, --metrics-port): %w", err)
	}
	// The log has the host as given: the listener would report [::] for 0.0.0.0.
	host, _, _ := net.SplitHostPort(c.address)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	log.Info("Prometheus metrics server started at " + net.JoinHostPort(host, port) + "/metrics")
	return l, nil
}

// newMetrics returns the metrics that are served and pushed.
func newMetrics(c config, f *fleet.Fleet) *exposition.Metrics {
	// A leader that loses the connection to its registry stops acting, but still counts as the
	// active program here: every program has lost the registry then, and there is no other
	// leader.
	standby := func() bool { return c.standby && !f.Stats.WasLeader.Load() }
	return exposition.NewMetrics(exposition.Collector{
		Fleet:   f,
		Build:   exposition.Build{Version: cli.Version, Revision: revision(), GoVersion: runtime.Version()},
		Model:   c.modelName,
		Now:     time.Now,
		Standby: standby,
	}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// suspendedAfter is the time between two ticks from which on the process, or its machine, must
// have been suspended.
const suspendedAfter = time.Second

// advanceClock advances the Fleet's clock until ctx ends, and logs once that a limit is reached.
func advanceClock(ctx context.Context, f *fleet.Fleet, limit int, log *slog.Logger) {
	logged := false
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-ticker.C:
			now := time.Now() // the ticker's time may be as old as the suspension
			if now.Sub(last) > suspendedAfter {
				f.Stats.RecordSuspension(last, now)
			}
			last = now
			f.Advance(now)
			// Readiness must be recorded even if no probe requests it.
			monitor.Ready(f)
			if !logged && f.Stats.AllRefused() > f.Stats.Refused(stats.SubscriptionLimit) { // which is logged elsewhere
				logged = true
				what := "more workers"
				if f.Stats.Refused(stats.WorkerLimit) == 0 {
					what = "everything that is registered or published"
				}
				log.Warn("There is no room for "+what+": raise --max-workers", "max_workers", limit)
			}
		case <-ctx.Done():
			return
		}
	}
}

// revision returns the commit that the program was built from, if Go has recorded it.
func revision() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}
