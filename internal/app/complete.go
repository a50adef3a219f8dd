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
func (c *config) requirements(f flags) []cli.Requirement {
	scrapes := c.scrape.mode != scrapeNone
	return []cli.Requirement{
		{Flags: "push-url push-interval", Met: c.push, Needs: "--push", Original: true},
		{Flags: "push-job push-grouping push-delete-on-exit", Met: c.push, Needs: "--push"},
		{Flags: "host port", Met: c.address != "" || !f.isSet("push-url"), Original: true,
			Needs: "--metrics-port: --push-url names the Pushgateway, and nothing is served"},
		{Flags: "web.config.file debug.pprof", Met: c.address != "", Needs: "--metrics-port: with --push alone nothing is served"},
		{Flags: "nats-tls-ca nats-tls-cert nats-tls-key", Met: c.nats != none, Needs: "--nats-server, which is none"},
		{Flags: "etcd-endpoints", Met: c.discovery == discoveryEtcd || c.etcd == none, Needs: "--discovery etcd"},
		{Flags: "kubernetes-namespace kubernetes-api", Met: c.discovery == discoveryKubernetes, Needs: "--discovery kubernetes"},
		{Flags: "file-kv", Met: c.discovery == discoveryFiles, Needs: "--discovery file"},
		{Flags: "standby", Met: c.hasUniqueInstance(),
			Needs: "etcd or Kubernetes for the leader election: leave it out with --discovery file and with --etcd-endpoints none"},
		{Flags: "worker-tls-ca worker-tls-cert worker-tls-key scrape-interval scrape-timeout", Met: scrapes, Needs: "--scrape-workers, which is " + scrapeNone},
		{Flags: "worker-metrics-url", Met: scrapes || c.address != "", Needs: "--scrape-workers, which is " + scrapeNone + ", or --metrics-port, which serves /api/v1/targets"},
		{Flags: "worker-tls-ca worker-tls-cert worker-tls-key", Met: c.scrape.urls.HasTLS(),
			Needs: "--worker-metrics-url with https://: the addresses that workers register are without TLS"},
	}
}

// complete evaluates the flags that depend on each other.
func (c *config) complete(f flags) error {
	hasComponent := f.isSet("component")
	if f.isSet("endpoint") && !hasComponent {
		return fmt.Errorf("--endpoint %q: needs --component, to which the endpoint belongs", f.endpoint)
	}
	c.target = fleet.Target{Component: f.component, Name: f.endpoint}
	if c.namespaces.IsPattern() {
		c.target.Namespace = string(c.namespaces)
	}
	switch {
	case c.hasRegistry():
	case c.namespaces.IsPattern():
		return fmt.Errorf("--etcd-endpoints %q: needs a single --namespace: without a registry the namespaces %q cannot be found", none, c.namespaces)
	case !hasComponent:
		return fmt.Errorf("--etcd-endpoints %q: needs --component: without a registry the components cannot be found", none)
	case c.nats == none:
		return fmt.Errorf("--nats-server %q: needs a registry: without NATS and a registry no worker can be found. Leave out --etcd-endpoints %q", none, none)
	}
	if f.isSet("port") && f.isSet("metrics-port") && f.port != f.metricsPort {
		return fmt.Errorf("--port \"%d\": want the same as --metrics-port (%d), or only one of the two", f.port, f.metricsPort)
	}
	if c.push && f.isSet("port") && f.port == 0 && !f.isSet("push-url") && !f.isSet("metrics-port") {
		return cli.FlagError("port", "0", "the Pushgateway's port")
	}
	c.setAddress(f)
	c.pushURL = pushURLFromFlags(f)
	return nil
}

// validate finds everything that cannot work in the flags and in the environment, including the
// files that they name.
func (c *config) validate(f flags, getenv func(string) string) (err error) {
	if err := connect.Check(c.natsServers(), c.natsTLS, c.etcdServers(), getenv); err != nil {
		return err
	}
	if c.discovery == discoveryKubernetes {
		if err := c.kubernetes.validate(getenv); err != nil {
			return err
		}
	}
	if err := c.scrape.validate(); err != nil {
		return err
	}
	if c.brokers, err = collect.ParseBrokers(c.brokerURL); err != nil {
		return fmt.Errorf("--zmq-broker %q: %w", c.brokerURL, err)
	}
	if c.web, err = web.ReadWebConfig(f.webConfig); err != nil {
		return fmt.Errorf("--web.config.file %q: want an exporter-toolkit configuration: %w", f.webConfig, err)
	}
	if c.push {
		c.pushgateway.URL, err = parsePushURL(c.pushURL)
	}
	return err
}

// setAddress decides where to serve. With --push it is nowhere, because the Pushgateway has the
// port, unless --metrics-port is set.
func (c *config) setAddress(f flags) {
	port := f.metricsPort
	if f.isSet("port") {
		port = f.port
	}
	if !c.push || f.isSet("metrics-port") {
		c.address = net.JoinHostPort(strings.Trim(f.host, "[]"), strconv.Itoa(port))
	}
}
