package monitor

import (
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// readyTimeout is how long the program waits for a missing input before it is ready without it. It
// then serves what the other inputs report, and names the missing one. If it stayed unready, a load
// balancer would send it no requests at all.
const readyTimeout = 30 * time.Second

// input is a connection from which the program learns about the fleet.
type input struct {
	*stats.ConnState
	missing []string // what is wrong with it; empty if it works
}

// inputs returns the inputs in use. Once the registry is known, NATS counts only if the namespace uses
// it.
func inputs(f *fleet.Fleet) []input {
	st := &f.Stats
	newInput := func(c *stats.ConnState, missing string) input {
		if c.Up() {
			return input{c, nil}
		}
		return input{c, []string{missing}}
	}
	all := []input{
		newInput(&st.Etcd, "etcd is not connected"),
		newInput(&st.Files, "the directory of workers cannot be read"),
		newInput(&st.Kubernetes, "the Kubernetes API cannot be read"),
		newInput(&st.ZMQ, "no ZMQ publisher is connected"),
	}
	// It is no problem that NATS is not connected until the registry shows that a worker uses it.
	if f.IsSynced() && !f.UsesNATS() || !f.IsSynced() && st.NATS.Disabled() {
		return all
	}
	nats := newInput(&st.NATS, "NATS is not connected")
	if refused := f.Diagnostics.RefusedSubjects(true); len(refused) > 0 && len(nats.missing) > 0 {
		nats.missing[0] = "NATS denies the permission for " + strings.Join(refused, " and ")
	}
	if !st.HasPolled() {
		nats.missing = append(nats.missing, "no poll has completed yet")
	}
	return append(all, nats)
}

// Missing lists what keeps the program from serving the fleet's present state.
func Missing(f *fleet.Fleet) (missing []string) {
	if f.Stats.RegistryUp() && !f.IsSynced() {
		missing = append(missing, "the registry has not been read yet")
	}
	for _, in := range inputs(f) {
		missing = append(missing, in.missing...)
	}
	return missing
}

// Ready reports whether the program is ready: the registry is known, and it has each input or has
// waited for it. Once ready, it stays ready until it ends.
func Ready(f *fleet.Fleet) bool {
	st := &f.Stats
	if st.Ready.Load() {
		return true
	}
	if !f.IsSynced() {
		return false
	}
	for _, in := range inputs(f) {
		if len(in.missing) > 0 && in.UsedFor() < readyTimeout {
			return false
		}
	}
	st.Ready.Store(true)
	return true
}
