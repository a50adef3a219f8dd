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
	// planeCheckInterval is the interval of the checks for mismatches. A fleet that starts, or
	// that changes its event plane, may have a mismatch for a few seconds.
	planeCheckInterval = 10 * time.Second

	// maxMismatches bounds the components that are kept for the web page.
	maxMismatches = 100
)

// WatchEventPlane warns, until ctx ends, of components whose workers publish on one event plane
// and whose routers use another one: those routers get no events about their workers' caches,
// and route requests as if nothing were cached.
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

// planeCheck counts the channels of each component by event plane.
type planeCheck map[fleet.Endpoint]*planeCounts

// planeCounts has the number of channels on each event plane, of workers and of routers.
type planeCounts struct{ workers, routers [fleet.PlaneCount]int }

// apply applies changes of the channels.
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

// mismatches returns the components whose workers are on an event plane that no router is on. If
// there are more than maxMismatches, it returns the first by name.
func (p planeCheck) mismatches() map[string]string {
	found := make(map[string]string)
	for component, s := range p {
		routers := s.routers
		if routers == ([fleet.PlaneCount]int{}) {
			if namespace := p[fleet.Endpoint{Namespace: component.Namespace}]; namespace != nil {
				routers = namespace.routers // up to 1.3, routers have channels for the whole namespace
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

// planeWarner logs each mismatch once for as long as it lasts. It names a limited number of
// components.
type planeWarner struct {
	log    *slog.Logger
	warned map[string]string // mismatches that last, and were logged
	named  int               // components that were logged
}

func (w *planeWarner) warn(mismatches map[string]string) {
	maps.DeleteFunc(w.warned, func(component, mismatch string) bool { return mismatches[component] != mismatch })
	for _, component := range slices.Sorted(maps.Keys(mismatches)) {
		mismatch := mismatches[component]
		if w.warned[component] == mismatch || w.named > maxNames {
			continue
		}
		w.warned[component] = mismatch
		if w.named++; w.named > maxNames {
			w.log.Warn("More components have workers and routers that do not share an event plane; further ones are only on the web page", "components", len(mismatches))
			continue
		}
		w.log.Warn("Workers and routers of a component do not share an event plane, so the routers do not know what is cached: set DYN_EVENT_PLANE to the same value",
			"component", component, "event_plane", mismatch)
	}
}

// isWorkerTopic reports whether workers publish this topic. Routers publish their own state, and
// up to 0.9 hit rates.
func isWorkerTopic(topic string) bool {
	return topic == wire.TopicKVEvents || topic == wire.TopicLoad || topic == wire.TopicForwardPass
}

// planeNames lists the event planes that have channels.
func planeNames(counts [fleet.PlaneCount]int) string {
	var all []string
	for plane, n := range counts {
		if n > 0 {
			all = append(all, fleet.EventPlane(plane).String())
		}
	}
	return strings.Join(all, " and ")
}
