// Package mock is Dynamo's mock worker: it registers like a real one, reports made-up
// load and publishes made-up events, in the form of the release that it is told to
// imitate.
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

// Config says which workers Run imitates. Namespace, Component and Endpoint must be set.
type Config struct {
	Namespace  string
	Component  string
	Endpoint   string
	Workers    int    // default 1
	Release    string // one of Releases; default Latest
	EventPlane string // NATS or ZMQ; default that of the release
	Host       string // where ZMQ sockets listen, as subscribers are told; default 127.0.0.1
	Seed       uint64 // of everything random but ids; 0: from the time

	// EventInterval is between two hit-rate events, or from 1.6.1 on two traces of
	// requests, which need NATS on any event plane; 0: none. To 0.5.1 there is one
	// publisher with a made-up worker id for all workers, as in the original; if they
	// are Correlated, and from 0.6.1 on, there is one for each.
	EventInterval time.Duration

	// Correlated workers are like real ones: their load moves smoothly, its values
	// fit each other, and hit-rate events carry the id of the worker they are about.
	// Otherwise every value is drawn anew every time, as in the original. Static
	// workers have no id, and so no events of this kind.
	Correlated bool

	// Load, if not nil, takes the place of the made-up load. It is asked at each
	// stats poll, and from 0.6.1 on four times a second, by several goroutines at
	// once: what changed is published.
	Load func(worker int) fleet.Load

	// Hit, if not nil, takes the place of the made-up hits. It is asked at each
	// EventInterval, by several goroutines at once; if it is not ok there is no event.
	// Events then carry the workers' own ids.
	Hit func(worker int) (isl, overlap int, ok bool)

	// Lose, if not nil, is asked about each event that has a sequence number. If it
	// says so the event is not sent, and its number is missing.
	DropEvent func(worker int, topic string) bool

	// Registered, if not nil, hears each worker's registration, also those after
	// a lost lease, from the worker's goroutine.
	OnRegistered func(worker int, in fleet.Instance)

	Log *slog.Logger // default: nowhere
}

// endpointName is what the NATS micro libraries take for one. Dynamo's own takes
// dots, too.
var endpointName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Check reports what is wrong with the configuration. The error begins with the
// name of the wrong setting, in lower case.
func (c Config) Check() error {
	bad := func(setting, value, want string) error {
		return fmt.Errorf("%s %q: want %s", setting, value, want)
	}
	r, known := c.release()
	switch {
	case c.Namespace == "" || strings.ContainsAny(c.Namespace, " \t\r\n*>/") || emptyToken(c.Namespace):
		return bad("namespace", c.Namespace, `a name without spaces, "*", ">", "/" and empty parts between dots`)
	case c.Component == "" || strings.Contains(c.Component, "/"):
		return bad("component", c.Component, `a name without "/"`)
	case !endpointName.MatchString(c.Endpoint):
		return bad("endpoint", c.Endpoint, `a name of letters, digits, "-" and "_": NATS micro services take no others`)
	case c.Workers < 0:
		return bad("workers", fmt.Sprint(c.Workers), "at least 1")
	case !known:
		return bad("release", c.Release, "one of "+strings.Join(Releases(), ", "))
	case c.EventPlane != "" && !slices.Contains(r.eventPlanes, c.EventPlane):
		return bad("event-plane", c.EventPlane, strings.Join(r.eventPlanes, " or ")+" with release "+r.name)
	case wire.ServiceName(r.era, c.Namespace, c.Component) == "":
		return bad("component", c.Component, "a name that, behind the namespace, leaves something of a NATS service's name")
	case c.EventInterval < 0:
		return bad("event-interval", c.EventInterval.String(), "0 or more")
	}
	return nil
}

// emptyToken reports whether s would leave an empty token in a NATS subject.
func emptyToken(s string) bool { return strings.Contains("."+s+".", "..") }

// release is the one that is asked for, and whether there is such a one.
func (c Config) release() (release, bool) {
	name := c.Release
	if name == "" {
		name = Latest
	}
	for _, r := range releases {
		if r.name == name {
			return r, true
		}
	}
	return release{}, false
}

// plane is the event plane of workers that Check has nothing against.
func (c Config) eventPlane() string {
	if c.EventPlane != "" {
		return c.EventPlane
	}
	r, _ := c.release()
	return r.eventPlanes[0]
}

// NeedsNATS reports whether there are no such workers without a NATS server. Check
// must have nothing against them.
func (c Config) NeedsNATS() bool {
	r, _ := c.release()
	return r.statsData != nil || c.eventPlane() == NATS
}

// HasZMQ reports whether subscribers find the workers on ZeroMQ. Check must have nothing against
// them.
func (c Config) HasZMQ() bool { return c.eventPlane() == ZMQ }

// NeedsEtcd reports whether there are no such static workers: from 0.6.1 on they
// report by events, which carry their ids. Check must have nothing against them.
func (c Config) NeedsEtcd() bool {
	r, _ := c.release()
	return r.events != nil
}
