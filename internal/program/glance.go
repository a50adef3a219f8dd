package program

import (
	"strings"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/glance"
	"dynamo-metrics/internal/wire"
)

// newGlance looks at the Fleet for people and autoscalers.
func newGlance(c config, f *fleet.Fleet) *glance.Glance {
	o := glance.Options{
		Fleet:     f,
		Namespace: c.namespace,
		Version:   cli.Version,
		Model:     c.modelName,
		Limit:     c.maxWorkers,
		Poll:      c.pollInterval,
		Servers:   map[string]string{"nats": cli.Redact(c.nats), "etcd": cli.Redact(c.etcd), "file": c.files},
		Mock:      c.mockCommand(),
	}
	switch {
	case c.etcdServers() != "":
		o.Registry, o.Instance = "etcd", wire.UniqueInstanceKey(c.namespace)
		for _, l := range wire.Layouts {
			o.Watches = append(o.Watches, l.Prefix(c.namespace))
		}
	case c.discovery == byFiles:
		o.Registry, o.Watches = "the directory of workers", []string{c.files}
	}
	if c.push {
		o.Gateway = cli.Redact(c.pushURL)
	}
	return glance.New(o)
}

// mockCommand starts a mock worker that this program sees; empty where none can. Servers
// that need a password are left to the environment.
func (c config) mockCommand() string {
	if c.discovery == byFiles {
		return ""
	}
	command := glance.Command("mock_worker", c.namespace, fleet.Endpoint(c.target))
	add := func(flag, value, standard string) {
		if value != standard && !strings.Contains(value, "@") {
			command += " --" + flag + " " + glance.Quote(value)
		}
	}
	add("nats-server", c.nats, "nats://localhost:4222")
	if c.etcd == none {
		return command + " --static"
	}
	add("etcd-endpoints", c.etcd, "http://localhost:2379")
	return command
}
