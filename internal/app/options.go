package app

import (
	"log/slog"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/web"
	"dynamo-metrics/internal/wire"
)

// None is the value of --etcd-endpoints for a fleet of static workers, and of --nats-server for a
// fleet without NATS.
const None = "none"

// The discovery backends.
const (
	DiscoveryEtcd       = "etcd"
	DiscoveryFiles      = "file"
	DiscoveryKubernetes = "kubernetes"
)

// Options are everything that the program is told to do: plain values, which the flags and the
// environment give.
type Options struct {
	Namespaces   wire.Namespaces
	Target       fleet.Target // the component and endpoint to watch
	PollInterval time.Duration
	MaxWorkers   int
	ModelName    string // of workers without a model card
	Standby      bool   // wait while another instance leads

	NATS, Etcd string // servers, separated by commas, or None
	NATSTLS    connect.NATSTLS
	Discovery  string            // one of the discovery backends
	Files      string            // the directory of DiscoveryFiles
	Kubernetes KubernetesOptions // of DiscoveryKubernetes
	Brokers    []string          // addresses of ZMQ brokers
	Scrape     ScrapeOptions     // of the workers' own metrics

	Address  string      // host:port to listen on; empty: nothing is served
	Web      *web.Config // TLS and authentication; nil: none
	Profiles bool

	Push        bool
	PushURL     string // as given, for people
	Pushgateway exposition.Gateway

	Getenv   func(string) string // for credentials of NATS and etcd
	Log      *slog.Logger
	Warnings []string // about flags without effect, which are logged at the start
}

// etcdServers returns the etcd endpoints, or "" if workers register elsewhere or nowhere.
func (o Options) etcdServers() string {
	if o.Etcd == None || o.Discovery != DiscoveryEtcd {
		return ""
	}
	return o.Etcd
}

// natsServers returns the NATS servers, or "" if there are none.
func (o Options) natsServers() string {
	if o.NATS == None {
		return ""
	}
	return o.NATS
}

// hasRegistry reports whether there is a registry.
func (o Options) hasRegistry() bool { return o.Discovery != DiscoveryEtcd || o.Etcd != None }

// hasUniqueInstance reports whether there is a leader election: a key or Lease that one program
// per namespace holds.
func (o Options) hasUniqueInstance() bool {
	return o.Discovery == DiscoveryKubernetes || o.etcdServers() != ""
}
