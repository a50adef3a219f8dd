// Package mock runs mock workers of a Dynamo release. They register like real workers,
// report made-up load and publish made-up events in the form of that release.
package mock

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// Config describes the workers that Run imitates. Namespace, Component and Endpoint must be
// set.
type Config struct {
	Namespace  string
	Component  string
	Endpoint   string
	Workers    int    // default 1
	Release    string // one of Releases; default DefaultRelease
	EventPlane string // NATS or ZMQ; default that of the release
	Host       string // address on which ZMQ sockets listen and which is registered; default 127.0.0.1
	Seed       uint64 // seed of all random values but ids; 0: taken from the clock

	// EventInterval is the time between two hit-rate events; 0 disables them. From 1.6.1 on
	// it is the time between two request traces, which need NATS with any event plane. Up to
	// 0.5.1 one publisher with a made-up worker id publishes for all workers, as in the
	// original. From 0.6.1 on, and if the workers are Correlated, each worker publishes.
	EventInterval time.Duration

	// Correlated workers behave like real ones: their load changes smoothly, its values fit
	// together, and hit-rate events have the id of a worker. Otherwise every value is random
	// and independent of all others, as in the original. Static workers have no id, and so
	// publish no such events.
	Correlated bool

	// Load, if not nil, replaces the made-up load. It is called at each stats poll, and from
	// 0.6.1 on also four times a second, to publish changes. Several goroutines call it at
	// once.
	Load func(worker int) fleet.Load

	// Hit, if not nil, replaces the made-up hits. It is called once in each EventInterval, by
	// several goroutines at once. If ok is false, there is no event. With Hit, events have the
	// ids of the workers.
	Hit func(worker int) (isl, overlap int, ok bool)

	// DropEvent, if not nil, is called for each event that has a sequence number. If it
	// returns true the event is not sent, and its sequence number is missing.
	DropEvent func(worker int, topic string) bool

	// OnRegistered, if not nil, is called after each registration of a worker, including
	// those after a lost lease, from the worker's goroutine.
	OnRegistered func(worker int, in fleet.Instance)

	Log *slog.Logger // default: logs are discarded
}

// endpointName matches the endpoint names that the NATS micro libraries accept. Dynamo
// itself accepts dots, too.
var endpointName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Check returns an error if the configuration is invalid. The error begins with the name of
// the invalid setting, in lower case.
func (c Config) Check() error {
	invalid := func(setting, value, want string) error {
		return fmt.Errorf("%s %q: want %s", setting, value, want)
	}
	r, known := c.release()
	switch {
	case c.Namespace == "" || strings.ContainsAny(c.Namespace, " \t\r\n*>/") || emptyToken(c.Namespace):
		return invalid("namespace", c.Namespace, `a name without spaces, "*", ">", "/" and empty parts between dots`)
	case c.Component == "" || strings.Contains(c.Component, "/"):
		return invalid("component", c.Component, `a name without "/"`)
	case !endpointName.MatchString(c.Endpoint):
		return invalid("endpoint", c.Endpoint, `a name of letters, digits, "-" and "_": NATS micro services take no others`)
	case c.Workers < 0:
		return invalid("workers", fmt.Sprint(c.Workers), "at least 1")
	case !known:
		return invalid("release", c.Release, "one of "+strings.Join(Releases(), ", "))
	case c.EventPlane != "" && !slices.Contains(r.eventPlanes, c.EventPlane):
		return invalid("event-plane", c.EventPlane, strings.Join(r.eventPlanes, " or ")+" with release "+r.name)
	case wire.ServiceName(r.era, c.Namespace, c.Component) == "":
		return invalid("component", c.Component, "a name that, with the namespace, yields a NATS service name")
	case c.EventInterval < 0:
		return invalid("event-interval", c.EventInterval.String(), "0 or more")
	}
	return nil
}

// emptyToken reports whether s would add an empty token to a NATS subject.
func emptyToken(s string) bool { return strings.Contains("."+s+".", "..") }

// release returns the configured release, and false if it is unknown.
func (c Config) release() (release, bool) {
	name := c.Release
	if name == "" {
		name = DefaultRelease
	}
	for _, r := range releases {
		if r.name == name {
			return r, true
		}
	}
	return release{}, false
}

// eventPlane returns the event plane of the workers. The configuration must be valid.
func (c Config) eventPlane() string {
	if c.EventPlane != "" {
		return c.EventPlane
	}
	r, _ := c.release()
	return r.eventPlanes[0]
}

// NeedsNATS reports whether the workers need a NATS server. The configuration must be
// valid.
func (c Config) NeedsNATS() bool {
	r, _ := c.release()
	return r.statsData != nil || c.eventPlane() == NATS
}

// HasZMQ reports whether the workers publish over ZeroMQ. The configuration must be valid.
func (c Config) HasZMQ() bool { return c.eventPlane() == ZMQ }

// NeedsEtcd reports whether the workers need etcd, and so cannot be static. From 0.6.1 on
// they report in events with their ids, which etcd assigns. The configuration must be
// valid.
func (c Config) NeedsEtcd() bool {
	r, _ := c.release()
	return r.events != nil
}
