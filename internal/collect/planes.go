package collect

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// gathering is how long planes may differ: while a fleet starts or moves they do.
const gathering = 10 * time.Second

// WatchPlanes warns, until ctx ends, of components whose workers publish on one event
// plane and whose routers on another: those routers hear nothing of their workers'
// caches, and send requests as if nobody had cached anything.
func WatchPlanes(ctx context.Context, f *fleet.Fleet, log *slog.Logger) {
	told := make(map[string]bool)
	for ctx.Err() == nil {
		_, changed := f.Channels()
		if connect.Wait(ctx, gathering) {
			channels, _ := f.Channels()
			clashes := split(channels)
			f.Notes.SetClashes(clashes)
			for component, planes := range clashes {
				if message := component + ": " + planes; !told[message] {
					told[message] = true
					log.Warn("Workers and routers of a component are on different event planes, so that routers miss what is cached: set DYN_EVENT_PLANE alike",
						"component", component, "planes", planes)
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// split are the components whose workers are on a plane that no router is on.
func split(channels map[string]fleet.Channel) map[string]string {
	type sides struct{ workers, routers map[fleet.Plane]bool }
	components := make(map[fleet.Endpoint]sides)
	for _, c := range channels {
		at := componentAt(c.Endpoint)
		s, known := components[at]
		if !known {
			s = sides{make(map[fleet.Plane]bool), make(map[fleet.Plane]bool)}
			components[at] = s
		}
		switch {
		case c.Plane == fleet.OtherPlane:
		case ofWorkers(c.Topic):
			s.workers[c.Plane] = true
		default:
			s.routers[c.Plane] = true
		}
	}
	found := make(map[string]string)
	for component, s := range components {
		routers := s.routers
		if len(routers) == 0 {
			routers = components[fleet.Endpoint{Namespace: component.Namespace}].routers // of the whole namespace, to 1.3
		}
		for plane := range s.workers {
			if len(routers) > 0 && !routers[plane] {
				found[strings.TrimPrefix(component.Namespace+"/"+component.Component, "/")] = "workers on " + names(s.workers) + ", routers on " + names(routers)
			}
		}
	}
	return found
}

// ofWorkers reports whether workers publish this topic. Routers publish what they
// tell each other, and to 0.9 hit rates.
func ofWorkers(topic string) bool {
	return topic == wire.TopicKVEvents || topic == wire.TopicLoad || topic == wire.TopicForwardPass
}

func names(planes map[fleet.Plane]bool) string {
	var all []string
	for _, p := range slices.Sorted(maps.Keys(planes)) {
		all = append(all, p.String())
	}
	return strings.Join(all, " and ")
}
