// Package app is the metrics program: its flags, and the goroutines that they start. It is a
// separate package so that cmd/devstack can run it in the same process as its servers.
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
	var o Options
	return cli.Run("metrics", getenv, stderr,
		func() (ended bool, err error) { o, ended, err = parse(args, getenv, stdout); return ended, err },
		func(log *slog.Logger) error {
			o.Log = log
			err := Run(ctx, o)
			if err == nil {
				log.Info("Stopped")
			}
			return err
		})
}

// Run creates everything and starts the loops that work on it, until ctx ends or one of them
// fails. The registration outlives the work, so that this program is still the leader during its
// last push.
func Run(ctx context.Context, o Options) error {
	log := o.Log
	for _, w := range o.Warnings {
		log.Warn(w)
	}
	listener, err := o.listen()
	if err != nil {
		return err
	}
	f := fleet.New(o.Target, o.MaxWorkers, o.hasRegistry())
	f.Advance(time.Now())
	o.markUsed(&f.Stats)
	f.Stats.LogDropped = func() uint64 { return dynlog.Dropped(log) }
	metrics := newMetrics(o, f)

	g, ctx := errgroup.WithContext(ctx)
	registered, release := context.WithCancel(context.WithoutCancel(ctx))
	if o.etcdServers() != "" {
		g.Go(func() error { return runEtcd(registered, o, f) })
	}
	if o.Discovery == DiscoveryKubernetes {
		g.Go(func() error { return runKubernetes(registered, o, f) })
	}
	if o.Discovery == DiscoveryFiles {
		files := discovery.Files{Root: o.Files, Namespaces: o.Namespaces, Fleet: f, State: &f.Stats.Files, Log: dynlog.Target(log, "files")}
		g.Go(func() error { return files.Watch(registered) })
	}
	g.Go(func() error {
		defer release()
		work, ctx := errgroup.WithContext(ctx)
		work.Go(func() error { advanceClock(ctx, f, o.MaxWorkers, log); return nil })
		work.Go(func() error { return collectAll(ctx, o, f) })
		work.Go(func() error { collect.WatchEventPlane(ctx, f, log); return nil })
		workerLog := &discovery.WorkerLog{Fleet: f, Namespaces: o.Namespaces, Poll: o.PollInterval, Log: log}
		work.Go(func() error { workerLog.Run(ctx); return nil })
		if o.Scrape.Mode != ScrapeNone {
			work.Go(func() error { return o.scraper(f).Run(ctx) })
		}
		mon := newMonitor(o, f) // problems are logged even if nothing is served
		work.Go(func() error { mon.Run(ctx); return nil })
		if listener != nil {
			httpLog := dynlog.Target(log, "http")
			work.Go(func() error { return web.Serve(ctx, listener, o.handler(f, metrics, mon, httpLog), o.Web, httpLog) })
		}
		if o.Push {
			work.Go(func() error { exposition.Push(ctx, o.Pushgateway, metrics, &f.Stats, log); return nil })
		}
		return work.Wait()
	})
	return g.Wait()
}

// markUsed records which servers the program uses.
func (o Options) markUsed(t *stats.Stats) {
	t.NATS.MarkUsed()
	t.NATSServer.MarkUsed()
	if o.natsServers() == "" {
		t.NATS.Disable()
	}
	switch {
	case o.Discovery == DiscoveryFiles:
		t.Files.MarkUsed()
	case o.Discovery == DiscoveryKubernetes:
		t.Kubernetes.MarkUsed()
	case o.etcdServers() != "":
		t.Etcd.MarkUsed()
	}
	if !o.hasUniqueInstance() {
		t.ActsAsLeader.Store(true) // there is no leader election
	}
}

// handler returns the handler of all paths.
func (o Options) handler(f *fleet.Fleet, metrics *exposition.Metrics, mon *monitor.Monitor, log *slog.Logger) http.Handler {
	return web.Handler(web.Options{Fleet: f, Namespaces: o.Namespaces, Monitor: mon, Metrics: metrics,
		WorkerMetricsURL: o.workerMetricsURL, Profiles: o.Profiles, Log: log})
}

// runEtcd watches the etcd registry and holds the unique instance's key.
func runEtcd(ctx context.Context, o Options, f *fleet.Fleet) error {
	etcd := dynlog.Target(o.Log, "etcd")
	endpoints, err := connect.NewEtcdEndpoints(o.etcdServers(), o.Getenv, etcd)
	if err != nil {
		return err
	}
	registry := discovery.Etcd{Endpoints: endpoints, Namespaces: o.Namespaces, Fleet: f, Log: etcd, MaxWorkers: o.MaxWorkers}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return registry.Watch(ctx) })
	key := leader.EtcdKey{Endpoints: endpoints, Namespaces: o.Namespaces, Stats: &f.Stats, Log: o.Log, Lost: registry.RequestRelist}
	g.Go(func() error { return key.Hold(ctx, instanceValue(o), o.Standby) })
	return g.Wait()
}

// instanceValue returns the value that the original wrote into its key, with the name of this
// host. Programs do not read it: it is there for people.
func instanceValue(o Options) []byte {
	host, _ := os.Hostname()
	value, _ := json.MarshalIndent(struct { // strings only, so it cannot fail
		Component string `json:"component_name"`
		Endpoint  string `json:"endpoint_name"`
		Model     string `json:"model_name,omitempty"`
		Host      string `json:"host,omitempty"`
	}{o.Target.Component, o.Target.Name, o.ModelName, host}, "", "  ")
	return value
}

// collectAll polls the workers and receives events, over NATS and ZeroMQ independently.
func collectAll(ctx context.Context, o Options, f *fleet.Fleet) error {
	events := collect.NewEvents(f, o.Namespaces, o.Log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return events.ZMQ(ctx, o.Brokers, collect.MaxZMQSubscriptions(o.MaxWorkers, maxOpenFiles()))
	})
	g.Go(func() error { return collectNATS(ctx, o, f, events) })
	return g.Wait()
}

func collectNATS(ctx context.Context, o Options, f *fleet.Fleet, events *collect.Events) error {
	poller := &collect.Poller{Fleet: f, Namespaces: o.Namespaces, Interval: o.PollInterval, Log: o.Log, PollNow: make(chan struct{}, 1)}
	pollNow := func() {
		select {
		case poller.PollNow <- struct{}{}:
		default:
		}
	}
	if o.natsServers() == "" {
		return poller.Run(ctx)
	}
	options, err := o.NATSTLS.Options()
	if err != nil {
		return err
	}
	access := events.Permissions()
	access.OnUp(pollNow) // after an outage the loads are old
	l2c := &exposition.L2C{Fleet: f, Namespace: string(o.Namespaces), Log: o.Log}
	poller.Permissions = access
	poller.OnLoads = func() {
		if f.Stats.ActsAsLeader.Load() {
			poller.Publish(wire.L2CSubjects(o.Namespaces), l2c.Publish)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	if o.Standby { // so that the first l2c event is published at once
		g.Go(func() error { onTakeover(ctx, &f.Stats.ActsAsLeader, pollNow); return nil })
	}
	hooks := connect.NATSHooks{StatusChanged: access.SetConnected, Denied: access.RecordDenial,
		ConnectError: func(err error) { f.Stats.NATS.SetError(err.Error()) }, AttemptFailed: func() { f.Stats.CountFailure(stats.PeerNATS) }}
	g.Go(func() error {
		return connect.RunNATS(ctx, o.NATS, o.Getenv, dynlog.Target(o.Log, "nats"), hooks, func(ctx context.Context, conn *nats.Conn) error {
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
func (o Options) listen() (net.Listener, error) {
	if o.Address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics (--host, --metrics-port): %w", err)
	}
	// The log has the host as given: the listener would report [::] for 0.0.0.0.
	host, _, _ := net.SplitHostPort(o.Address)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	o.Log.Info("Prometheus metrics server started at " + net.JoinHostPort(host, port) + "/metrics")
	return l, nil
}

// newMetrics returns the metrics that are served and pushed.
func newMetrics(o Options, f *fleet.Fleet) *exposition.Metrics {
	// A leader that loses the connection to its registry stops acting, but still counts as the
	// active program here: every program has lost the registry then, and there is no other
	// leader.
	standby := func() bool { return o.Standby && !f.Stats.WasLeader.Load() }
	return exposition.NewMetrics(exposition.Collector{
		Fleet:   f,
		Build:   exposition.Build{Version: cli.Version, Revision: revision(), GoVersion: runtime.Version()},
		Model:   o.ModelName,
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
