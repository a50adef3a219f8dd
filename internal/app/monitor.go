package app

import (
	"cmp"
	"log/slog"
	"strings"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/wire"
)

// newMonitor returns the monitor of the Fleet.
func newMonitor(c config, f *fleet.Fleet, log *slog.Logger) *monitor.Monitor {
	o := monitor.Options{
		Fleet:         f,
		Namespaces:    c.namespaces,
		Version:       cli.Version,
		Model:         c.modelName,
		Limit:         c.maxWorkers,
		Poll:          c.pollInterval,
		Scrape:        c.scrape.interval,
		ScrapeTimeout: c.scrape.timeout,
		Log:           log,
		Servers: map[string]string{
			"nats": cli.Redact(c.nats), "etcd": cli.Redact(c.etcd), "file": c.files,
			"kubernetes": cmp.Or(cli.Redact(c.kubernetes.api), "the API server of this cluster") + ", namespace " + c.kubernetes.namespace,
		},
		Mock: c.mockCommand(),
	}
	if c.web != nil {
		o.WebFile, o.WebError = c.web.Path(), c.web.Problem
	}
	key := wire.LeaderKey(string(c.namespaces))
	switch {
	case c.discovery == discoveryFiles:
		o.Registry, o.Watches = "the directory of workers", []string{c.files}
	case c.discovery == discoveryKubernetes:
		o.Registry, o.Instance = "Kubernetes", key+" (a Lease in "+c.kubernetes.namespace+")"
		o.Watches = []string{"dynamoworkermetadatas in " + c.kubernetes.namespace, "endpointslices in " + c.kubernetes.namespace}
		if c.kubernetes.byContainer {
			o.Watches[1] = "pods in " + c.kubernetes.namespace
		}
	case c.etcdServers() != "":
		o.Registry, o.Instance, o.Watches = "etcd", key, c.namespaces.KeyPrefixes()
	}
	if c.push {
		o.Gateway = cli.Redact(c.pushURL)
	}
	return monitor.New(o)
}

// mockCommand returns a command that starts a mock worker which this program finds, or "" if
// there is none. Server addresses with passwords are left to the environment.
func (c config) mockCommand() string {
	if c.discovery != discoveryEtcd {
		return ""
	}
	namespace := string(c.namespaces)
	if c.namespaces.IsPattern() {
		namespace = strings.TrimSuffix(namespace, "*") + "mock"
	}
	command := monitor.Command("mock_worker", namespace, fleet.Endpoint(c.target))
	add := func(flag, value, standard string) {
		if value != standard && !strings.Contains(value, "@") {
			command += " --" + flag + " " + monitor.Quote(value)
		}
	}
	add("nats-server", c.nats, "nats://localhost:4222")
	if c.etcd == none {
		return command + " --static"
	}
	add("etcd-endpoints", c.etcd, "http://localhost:2379")
	return command
}
