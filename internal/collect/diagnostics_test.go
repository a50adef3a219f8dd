package collect

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// TestDiagnosticsListUnreachablePublishers lists a publisher until its key is deleted.
func TestDiagnosticsListUnreachablePublishers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // no server is at its address
	f := fleet.New(fleet.Target{}, 10, true)
	unreachable := fleet.Channel{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, Topic: wire.TopicLoad, Publisher: 7, Plane: fleet.ZMQPlane, Address: "tcp://" + l.Addr().String()}
	f.AddChannel("key", unreachable)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewEvents(f, "dynamo", slog.New(slog.DiscardHandler)).ZMQ(ctx, nil, 100) }()
	waitListed := func(want int) {
		t.Helper()
		testutil.Until(t, func() error {
			if got := f.Diagnostics.UnreachableSince(time.Now()); len(got) != want || want == 1 && got[0] != unreachable {
				return fmt.Errorf("unreachable: %v, want %d", got, want)
			}
			return nil
		})
	}
	waitListed(1)
	f.RemoveChannel("key")
	waitListed(0)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDiagnosticsListGaps(t *testing.T) {
	f := fleet.New(fleet.Target{}, 10, true)
	e := NewEvents(f, "dynamo", slog.New(slog.DiscardHandler))
	for _, n := range []uint64{3, 4, 9} {
		e.handleEnvelope(fleet.Endpoint{}, wire.TopicLoad, wire.Envelope{Publisher: 7, Sequence: n, Topic: []byte(wire.TopicLoad)}, &e.gapDetector, nil)
	}
	if gaps := f.Diagnostics.Gaps(); len(gaps) > 0 {
		t.Errorf("gaps %+v while the events may still arrive", gaps)
	}
	e.openGaps.expire(time.Now().Add(gapTimeout))
	gaps := f.Diagnostics.Gaps()
	if len(gaps) != 1 || gaps[0].Publisher != 7 || gaps[0].Kind != stats.LoadEvent || gaps[0].After != 4 || gaps[0].Before != 9 || time.Since(gaps[0].At) > time.Minute {
		t.Errorf("gaps %+v, want one of publisher 7 from 4 to 9, just now", gaps)
	}
}

func TestDiagnosticsListPlaneMismatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{}, 10, true)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go WatchEventPlane(ctx, f, slog.New(slog.DiscardHandler))
		endpoint := fleet.Endpoint{Component: "backend", Name: "generate"}
		f.AddChannel("worker", fleet.Channel{Endpoint: endpoint, Topic: wire.TopicKVEvents, Plane: fleet.ZMQPlane})
		f.AddChannel("router", fleet.Channel{Endpoint: endpoint, Topic: "active_sequences_events", Plane: fleet.NATSPlane})
		time.Sleep(2 * planeCheckInterval)
		if got := f.Diagnostics.PlaneMismatches(); len(got) != 1 || got["backend"] != "workers on ZMQ, routers on NATS" {
			t.Errorf("mismatches %v", got)
		}
		f.RemoveChannel("router")
		time.Sleep(2 * planeCheckInterval)
		if got := f.Diagnostics.PlaneMismatches(); len(got) != 0 {
			t.Errorf("mismatches %v after the router has left", got)
		}
	})
}
