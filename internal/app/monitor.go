package app

import (
	"cmp"
	"strings"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/wire"
)

// newMonitor returns the monitor of the Fleet.
func newMonitor(o Options, f *fleet.Fleet) *monitor.Monitor {
	m := monitor.Options{
		Fleet:         f,
		Namespaces:    o.Namespaces,
		Version:       cli.Version,
		Model:         o.ModelName,
		Limit:         o.MaxWorkers,
		Poll:          o.PollInterval,
		Scrape:        o.Scrape.Interval,
		ScrapeTimeout: o.Scrape.Timeout,
		Log:           o.Log,
		Servers: map[string]string{
			"nats": cli.Redact(o.NATS), "etcd": cli.Redact(o.Etcd), "file": o.Files,
			"kubernetes": cmp.Or(cli.Redact(o.Kubernetes.API), "the API server of this cluster") + ", namespace " + o.Kubernetes.Namespace,
		},
		Mock: o.mockCommand(),
	}
	if o.Web != nil {
		m.WebFile, m.WebError = o.Web.Path(), o.Web.Problem
	}
	key := wire.LeaderKey(string(o.Namespaces))
	switch {
	case o.Discovery == DiscoveryFiles:
		m.Registry, m.Watches = "the directory of workers", []string{o.Files}
	case o.Discovery == DiscoveryKubernetes:
		m.Registry, m.Instance = "Kubernetes", key+" (a Lease in "+o.Kubernetes.Namespace+")"
		m.Watches = []string{"dynamoworkermetadatas in " + o.Kubernetes.Namespace, "endpointslices in " + o.Kubernetes.Namespace}
		if o.Kubernetes.ByContainer {
			m.Watches[1] = "pods in " + o.Kubernetes.Namespace
		}
	case o.etcdServers() != "":
		m.Registry, m.Instance, m.Watches = "etcd", key, o.Namespaces.KeyPrefixes()
	}
	if o.Push {
		m.Gateway = cli.Redact(o.PushURL)
	}
	return monitor.New(m)
}

// mockCommand returns a command that starts a mock worker which this program finds, or "" if
// there is none. Server addresses with passwords are left to the environment.
func (o Options) mockCommand() string {
	if o.Discovery != DiscoveryEtcd {
		return ""
	}
	namespace := string(o.Namespaces)
	if o.Namespaces.IsPattern() {
		namespace = strings.TrimSuffix(namespace, "*") + "mock"
	}
	command := monitor.Command("mock_worker", namespace, fleet.Endpoint(o.Target))
	add := func(flag, value, standard string) {
		if value != standard && !strings.Contains(value, "@") {
			command += " --" + flag + " " + monitor.Quote(value)
		}
	}
	add("nats-server", o.NATS, "nats://localhost:4222")
	if o.Etcd == None {
		return command + " --static"
	}
	add("etcd-endpoints", o.Etcd, "http://localhost:2379")
	return command
}
