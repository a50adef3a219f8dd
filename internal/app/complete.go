package app

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/web"
)

// requirements returns the flags that have no effect without another flag. Flags that are in no
// row always have an effect.
func (o *Options) requirements(f flags) []cli.Requirement {
	scrapes := o.Scrape.Mode != ScrapeNone
	return []cli.Requirement{
		{Flags: "push-url push-interval", Met: o.Push, Needs: "--push", Original: true},
		{Flags: "push-job push-grouping push-delete-on-exit", Met: o.Push, Needs: "--push"},
		{Flags: "host port", Met: o.Address != "" || !f.isSet("push-url"), Original: true,
			Needs: "--metrics-port: --push-url names the Pushgateway, and nothing is served"},
		{Flags: "web.config.file debug.pprof", Met: o.Address != "", Needs: "--metrics-port: with --push alone nothing is served"},
		{Flags: "nats-tls-ca nats-tls-cert nats-tls-key", Met: o.NATS != None, Needs: "--nats-server, which is none"},
		{Flags: "etcd-endpoints", Met: o.Discovery == DiscoveryEtcd || o.Etcd == None, Needs: "--discovery etcd"},
		{Flags: "kubernetes-namespace kubernetes-api", Met: o.Discovery == DiscoveryKubernetes, Needs: "--discovery kubernetes"},
		{Flags: "file-kv", Met: o.Discovery == DiscoveryFiles, Needs: "--discovery file"},
		{Flags: "standby", Met: o.hasUniqueInstance(),
			Needs: "etcd or Kubernetes for the leader election: leave it out with --discovery file and with --etcd-endpoints none"},
		{Flags: "worker-tls-ca worker-tls-cert worker-tls-key scrape-interval scrape-timeout", Met: scrapes, Needs: "--scrape-workers, which is " + ScrapeNone},
		{Flags: "worker-metrics-url", Met: scrapes || o.Address != "", Needs: "--scrape-workers, which is " + ScrapeNone + ", or --metrics-port, which serves /api/v1/targets"},
		{Flags: "worker-tls-ca worker-tls-cert worker-tls-key", Met: o.Scrape.URLs.HasTLS(),
			Needs: "--worker-metrics-url with https://: the addresses that workers register are without TLS"},
	}
}

// complete evaluates the flags that depend on each other.
func (o *Options) complete(f flags) error {
	hasComponent := f.isSet("component")
	if f.isSet("endpoint") && !hasComponent {
		return fmt.Errorf("--endpoint %q: needs --component, to which the endpoint belongs", f.endpoint)
	}
	o.Target = fleet.Target{Component: f.component, Name: f.endpoint}
	if o.Namespaces.IsPattern() {
		o.Target.Namespace = string(o.Namespaces)
	}
	switch {
	case o.hasRegistry():
	case o.Namespaces.IsPattern():
		return fmt.Errorf("--etcd-endpoints %q: needs a single --namespace: without a registry the namespaces %q cannot be found", None, o.Namespaces)
	case !hasComponent:
		return fmt.Errorf("--etcd-endpoints %q: needs --component: without a registry the components cannot be found", None)
	case o.NATS == None:
		return fmt.Errorf("--nats-server %q: needs a registry: without NATS and a registry no worker can be found. Leave out --etcd-endpoints %q", None, None)
	}
	if f.isSet("port") && f.isSet("metrics-port") && f.port != f.metricsPort {
		return fmt.Errorf("--port \"%d\": want the same as --metrics-port (%d), or only one of the two", f.port, f.metricsPort)
	}
	if o.Push && f.isSet("port") && f.port == 0 && !f.isSet("push-url") && !f.isSet("metrics-port") {
		return cli.FlagError("port", "0", "the Pushgateway's port")
	}
	o.setAddress(f)
	o.PushURL = pushURLFromFlags(f)
	return nil
}

// validate finds everything that cannot work in the flags and in the environment, including the
// files that they name.
func (o *Options) validate(f flags, getenv func(string) string) (err error) {
	if err := connect.Check(o.natsServers(), o.NATSTLS, o.etcdServers(), getenv); err != nil {
		return err
	}
	if o.Discovery == DiscoveryKubernetes {
		if err := o.Kubernetes.validate(getenv); err != nil {
			return err
		}
	}
	if err := o.Scrape.validate(); err != nil {
		return err
	}
	if o.Brokers, err = collect.ParseBrokers(f.zmqBroker); err != nil {
		return fmt.Errorf("--zmq-broker %q: %w", f.zmqBroker, err)
	}
	if o.Web, err = web.ReadConfig(f.webConfig); err != nil {
		return fmt.Errorf("--web.config.file %q: want an exporter-toolkit configuration: %w", f.webConfig, err)
	}
	if o.Push {
		o.Pushgateway.URL, err = parsePushURL(o.PushURL)
	}
	return err
}

// setAddress decides where to serve. With --push it is nowhere, because the Pushgateway has the
// port, unless --metrics-port is set.
func (o *Options) setAddress(f flags) {
	port := f.metricsPort
	if f.isSet("port") {
		port = f.port
	}
	if !o.Push || f.isSet("metrics-port") {
		o.Address = net.JoinHostPort(strings.Trim(f.host, "[]"), strconv.Itoa(port))
	}
}
