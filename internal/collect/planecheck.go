package collect

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

const (
	// gathering is how long planes may differ: while a fleet starts or moves they do.
	planeCheckInterval = 10 * time.Second

	// mostClashes bounds the components that are told to the page.
	maxMismatches = 100
)

// WatchPlanes warns, until ctx ends, of components whose workers publish on one event
// plane and whose routers on another: those routers hear nothing of their workers'
// caches, and send requests as if nobody had cached anything.
func WatchEventPlane(ctx context.Context, f *fleet.Fleet, log *slog.Logger) {
	w := planeWarner{log: log, warned: make(map[string]string)}
	channels, known := f.WatchChannels(), make(planeCheck)
	for backoff.Wait(ctx, planeCheckInterval) {
		changes, all, more := channels.Changes()
		if all {
			clear(known)
		}
		known.apply(changes)
		mismatches := known.mismatches()
		f.Diagnostics.SetPlaneMismatches(mismatches)
		w.warn(mismatches)
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}

// planes are the channels of each component by their planes.
type planeCheck map[fleet.Endpoint]*planeCounts

// sides are how many channels there are on each plane, of the workers and of the routers.
type planeCounts struct{ workers, routers [fleet.PlaneCount]int }

// follow takes over changes of the channels.
func (p planeCheck) apply(changes []fleet.ChannelChange) {
	for _, c := range changes {
		p.count(c.Old, -1)
		p.count(c.New, 1)
	}
}

func (p planeCheck) count(c fleet.Opt[fleet.Channel], delta int) {
	if !c.OK || c.V.Plane == fleet.OtherPlane {
		return
	}
	at := componentOf(c.V.Endpoint)
	s := p[at]
	if s == nil {
		s = new(planeCounts)
		p[at] = s
	}
	if isWorkerTopic(c.V.Topic) {
		s.workers[c.V.Plane] += delta
	} else {
		s.routers[c.V.Plane] += delta
	}
	if *s == (planeCounts{}) {
		delete(p, at)
	}
}

// split are the components whose workers are on a plane that no router is on, the first
// ones by their names.
func (p planeCheck) mismatches() map[string]string {
	found := make(map[string]string)
	for component, s := range p {
		routers := s.routers
		if routers == ([fleet.PlaneCount]int{}) {
			if of := p[fleet.Endpoint{Namespace: component.Namespace}]; of != nil {
				routers = of.routers // of the whole namespace, up to 1.3
			}
		}
		for plane, n := range s.workers {
			if n > 0 && routers[plane] == 0 && routers != ([fleet.PlaneCount]int{}) {
				found[strings.TrimPrefix(component.Namespace+"/"+component.Component, "/")] = "workers on " + planeNames(s.workers) + ", routers on " + planeNames(routers)
			}
		}
	}
	if len(found) > maxMismatches {
		for _, component := range slices.Sorted(maps.Keys(found))[maxMismatches:] {
			delete(found, component)
		}
	}
	return found
}

// planesWarner says in the log what clashes, each once for as long as it does, and of few
// components by name.
type planeWarner struct {
	log    *slog.Logger
	warned map[string]string // of what clashes now
	named  int
}

func (w *planeWarner) warn(mismatches map[string]string) {
	maps.DeleteFunc(w.warned, func(component, planes string) bool { return mismatches[component] != planes })
	for _, component := range slices.Sorted(maps.Keys(mismatches)) {
		planes := mismatches[component]
		if w.warned[component] == planes || w.named > maxNames {
			continue
		}
		w.warned[component] = planes
		if w.named++; w.named > maxNames {
			w.log.Warn("More components have workers and routers on different event planes; further ones are on the web page alone", "components", len(mismatches))
			continue
		}
		w.log.Warn("Workers and routers of a component are on different event planes, so that routers miss what is cached: set DYN_EVENT_PLANE alike",
			"component", component, "planes", planes)
	}
}

// ofWorkers reports whether workers publish this topic. Routers publish what they
// tell each other, and to 0.9 hit rates.
func isWorkerTopic(topic string) bool {
	return topic == wire.TopicKVEvents || topic == wire.TopicLoad || topic == wire.TopicForwardPass
}

func planeNames(on [fleet.PlaneCount]int) string {
	var all []string
	for plane, n := range on {
		if n > 0 {
			all = append(all, fleet.EventPlane(plane).String())
		}
	}
	return strings.Join(all, " and ")
}
