// Package mock is Dynamo's mock worker: it registers like a real one, answers stats
// polls with made-up load and publishes made-up hit-rate events, in the form of the
// release that it is told to imitate.
package mock

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// Latest is the release that is imitated if none is named.
const Latest = "0.5.1"

// Config says which workers Run imitates. Namespace, Component and Endpoint must be set.
type Config struct {
	Namespace string
	Component string
	Endpoint  string
	Workers   int    // default 1
	Release   string // one of Releases; default Latest
	Seed      uint64 // of everything random; 0: from the time

	// EventInterval is between two hit-rate events; 0: none. There is one publisher
	// with a made-up worker id for all workers, as in the original; if they are
	// Correlated there is one for each.
	EventInterval time.Duration

	// Correlated workers are like real ones: their load moves smoothly, its values
	// fit each other, and hit-rate events carry the id of the worker they are about.
	// Otherwise every value is drawn anew every time, as in the original. Static
	// workers have no id, and so no events of this kind.
	Correlated bool

	// Load, if not nil, takes the place of the made-up load. It is asked at each
	// stats poll, by several goroutines at once.
	Load func(worker int) fleet.Load

	// Registered, if not nil, hears each worker's registration, also those after
	// a lost lease, from the worker's goroutine.
	Registered func(worker int, in fleet.Instance)

	Log *slog.Logger // default: nowhere
}

// release is how the workers of a release speak.
type release struct {
	name   string
	era    wire.Era
	layout wire.Layout
	data   func(fleet.Load) any // what they put into "data", for encoding/json
}

var releases = []release{
	{"0.1.0", wire.EraSeed, wire.LayoutComponents, flat},
	{"0.1.1", wire.EraHashed, wire.LayoutComponents, flat},
	{"0.2.1", wire.EraPlain, wire.LayoutComponents, flat},
	{"0.3.0", wire.EraPlain, wire.LayoutInstances, flatWithRank},
	{"0.5.1", wire.EraPlain, wire.LayoutInstances, nested},
}

// serviceVersion is what all of them give as the version of their NATS service.
const serviceVersion = "0.0.1"

// Releases lists the releases that can be imitated, oldest first.
func Releases() []string {
	names := make([]string, len(releases))
	for i, r := range releases {
		names[i] = r.name
	}
	return names
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
