package monitor

import (
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// readyAfter is how long the program waits for an input that is away before it is ready
// without it. What is shown then is what the others say, and what is away is said with it: a
// program that a load balancer leaves out shows nothing at all.
const readyTimeout = 30 * time.Second

// input is something that the program learns of the fleet from.
type input struct {
	*stats.ConnState
	missing []string // what is wrong with it; empty if nothing is
}

// inputs are those in use. Of the event planes only those matter that the namespace uses,
// once that is known.
func inputs(f *fleet.Fleet) []input {
	t := &f.Stats
	of := func(l *stats.ConnState, away string) input {
		if l.Up() {
			return input{l, nil}
		}
		return input{l, []string{away}}
	}
	all := []input{
		of(&t.Etcd, "etcd is not connected"),
		of(&t.Files, "the directory of workers cannot be read"),
		of(&t.Kubernetes, "the Kubernetes API cannot be read"),
		of(&t.ZMQ, "no ZMQ publisher is connected"),
	}
	// Without NATS it is no trouble before it is known that something uses it.
	if f.IsSynced() && !f.UsesNATS() || !f.IsSynced() && t.NATS.Disabled() {
		return all
	}
	nats := of(&t.NATS, "NATS is not connected")
	if refused := f.Diagnostics.RefusedSubjects(true); len(refused) > 0 && len(nats.missing) > 0 {
		nats.missing[0] = "NATS denies the permission for " + strings.Join(refused, " and ")
	}
	if !t.HasPolled() {
		nats.missing = append(nats.missing, "no poll has been done yet")
	}
	return append(all, nats)
}

// Away says what keeps the program from showing the fleet as it is.
func Missing(f *fleet.Fleet) (away []string) {
	if f.Stats.RegistryUp() && !f.IsSynced() {
		away = append(away, "it is not known yet who is registered")
	}
	for _, in := range inputs(f) {
		away = append(away, in.missing...)
	}
	return away
}

// Ready reports whether the program has something to show: it was told who is registered,
// and each input was there or has been waited for. From then on it is ready until it ends.
func Ready(f *fleet.Fleet) bool {
	t := &f.Stats
	if t.Ready.Load() {
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
	t.Ready.Store(true)
	return true
}
