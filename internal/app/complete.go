package app

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/expose"
	"dynamo-metrics/internal/fleet"
)

// needs are the flags that do nothing without another. Flags that are in no row do something
// whatever the others say.
func (c *config) requirements(f flags) []cli.Requirement {
	pages := c.scrape.mode != scrapeNone
	return []cli.Requirement{
		{Flags: "push-url push-interval", Met: c.push, Needs: "--push", Original: true},
		{Flags: "push-job push-grouping push-delete-on-exit", Met: c.push, Needs: "--push"},
		{Flags: "host port", Met: c.address != "" || !f.isSet("push-url"), Original: true,
			Needs: "--metrics-port, since --push-url names the Pushgateway, and nothing is served"},
		{Flags: "web.config.file debug.pprof", Met: c.address != "", Needs: "--metrics-port, since with --push alone nothing is served"},
		{Flags: "nats-tls-ca nats-tls-cert nats-tls-key", Met: c.nats != none, Needs: "--nats-server, which says that there is none"},
		{Flags: "etcd-endpoints", Met: c.discovery == discoveryEtcd || c.etcd == none, Needs: "--discovery etcd"},
		{Flags: "kubernetes-namespace kubernetes-api", Met: c.discovery == discoveryKubernetes, Needs: "--discovery kubernetes"},
		{Flags: "file-kv", Met: c.discovery == discoveryFiles, Needs: "--discovery file"},
		{Flags: "standby", Met: c.hasUniqueInstance(),
			Needs: "etcd or Kubernetes, where the unique instance is registered: leave it out with --discovery file and --etcd-endpoints none"},
		{Flags: "worker-tls-ca worker-tls-cert worker-tls-key scrape-interval scrape-timeout", Met: pages, Needs: "--scrape-workers, which is " + scrapeNone},
		{Flags: "worker-metrics-url", Met: pages || c.address != "", Needs: "--scrape-workers, which is " + scrapeNone + ", or a page that lists targets"},
		{Flags: "worker-tls-ca worker-tls-cert worker-tls-key", Met: c.scrape.urls.HasTLS(),
			Needs: "--worker-metrics-url with https://, since workers register pages without TLS"},
	}
}

// complete understands the flags that depend on each other.
func (c *config) complete(f flags) error {
	hasComponent := f.isSet("component")
	if f.isSet("endpoint") && !hasComponent {
		return fmt.Errorf("--endpoint %q: needs --component, which says whose endpoint it is", f.endpoint)
	}
	c.target = fleet.Target{Component: f.component, Name: f.endpoint}
	if c.namespaces.IsPattern() {
		c.target.Namespace = string(c.namespaces)
	}
	switch {
	case c.hasRegistry():
	case c.namespaces.IsPattern():
		return fmt.Errorf("--etcd-endpoints %q: needs one --namespace, since nothing says which there are that begin with %q", none, c.namespaces)
	case !hasComponent:
		return fmt.Errorf("--etcd-endpoints %q: needs --component, since nothing else says which there are", none)
	case c.nats == none:
		return fmt.Errorf("--nats-server %q: needs a registry, since without both nothing can be learnt: leave --etcd-endpoints %q out", none, none)
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

// check looks for what cannot work, in all that flags and environment name: files, too.
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
	if c.web, err = expose.ReadWebConfig(f.webConfig); err != nil {
		return fmt.Errorf("--web.config.file %q: want an exporter-toolkit configuration: %w", f.webConfig, err)
	}
	if c.push {
		c.pushgateway.URL, err = parsePushURL(c.pushURL)
	}
	return err
}

// listen decides where to serve: with --push nowhere, since the Pushgateway has
// the port, unless --metrics-port says so.
func (c *config) setAddress(f flags) {
	port := f.metricsPort
	if f.isSet("port") {
		port = f.port
	}
	if !c.push || f.isSet("metrics-port") {
		c.address = net.JoinHostPort(strings.Trim(f.host, "[]"), strconv.Itoa(port))
	}
}
