package collect

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
)

// TestZMQFollowsMovedPublisherInTwoSeconds, as one is that a shadow takes over, or
// a container that was started again: whatever is at its old address and for however long, and
// whichever way the registry says so.
func TestZMQFollowsMovedPublisherInTwoSeconds(t *testing.T) {
	const before, after = "before:1", "after:1"
	old, now := hitRateChannel(5, before, backendEndpoint), hitRateChannel(5, after, backendEndpoint)
	state := map[string]func(*zmqNetwork){
		"speaks":            func(p *zmqNetwork) { p.listen(before) },
		"has died":          func(p *zmqNetwork) { p.listen(before); time.Sleep(time.Second); p.stop(before) },
		"refuses":           func(*zmqNetwork) {},
		"swallows":          func(p *zmqNetwork) { p.dropPackets(before) },
		"refused for long":  func(*zmqNetwork) { time.Sleep(10 * time.Minute) },
		"swallowed as long": func(p *zmqNetwork) { p.dropPackets(before); time.Sleep(10 * time.Minute) },
	}
	change := map[string]func(*fleet.Fleet){
		"its key has another value":  func(f *fleet.Fleet) { f.AddChannel("a", now) },
		"another key is there, too":  func(f *fleet.Fleet) { f.AddChannel("b", now) },
		"another key takes its turn": func(f *fleet.Fleet) { f.AddChannel("b", now); f.RemoveChannel("a") },
		"its key was away":           func(f *fleet.Fleet) { f.RemoveChannel("a"); time.Sleep(time.Minute); f.AddChannel("a", now) },
		"the registry is read anew":  func(f *fleet.Fleet) { f.Sync(fleet.Listing{Channels: map[string]fleet.Channel{"a": now}}) },
	}
	for was, await := range state {
		for how, do := range change {
			t.Run(was+", "+how, func(t *testing.T) {
				runZMQNetwork(t, 100, func(p *zmqNetwork) {
					p.fleet.AddChannel("a", old)
					await(p)
					time.Sleep(time.Second)
					s := p.listen(after)
					do(p.fleet)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					s.sendHit(5, 1000, 0x11) // the first of many that the program was told
					p.checkHits(1, 0)
					if n, _ := p.dialCounts(after); n != 1 {
						t.Errorf("the new address was dialled %d times, want once", n)
					}
				})
			})
		}
	}
}

// TestZMQConnectsToLatePublisherInTwoSeconds after its key came: the pauses at the
// new address begin with the shortest.
func TestZMQConnectsToLatePublisherInTwoSeconds(t *testing.T) {
	runZMQNetwork(t, 100, func(p *zmqNetwork) {
		p.fleet.AddChannel("a", hitRateChannel(5, "before:1", backendEndpoint))
		time.Sleep(10 * time.Minute)
		p.fleet.AddChannel("a", hitRateChannel(5, "after:1", backendEndpoint))
		time.Sleep(time.Second)
		p.listen("after:1")
		time.Sleep(time.Second)
		p.checkPublishers(1, 1, 0)
	})
}

// TestScraperFollowsMovedWorkerInTwoIntervals, as that of a new worker is, whatever is at
// the old one: the address is looked up when a round begins, and has its time in the round.
func TestScraperFollowsMovedWorkerInTwoIntervals(t *testing.T) {
	const interval = time.Second
	for was := responds; was <= stalls; was++ {
		t.Run(fmt.Sprint(was), func(t *testing.T) {
			runMetricsNetwork(t, 1, interval, func(w *metricsNetwork) {
				isAt := func(host string) {
					in := fleet.Instance{Endpoint: backendEndpoint, ID: 1}
					w.fleet.Register("0", in, fleet.Registration{Publishes: true, Transport: host})
				}
				shown := func() fleet.Load { return w.fleet.Snapshot().Workers[0].Load.V }
				for n := range 10 {
					isAt("1")
					w.setBehavior(responds, 1)
					time.Sleep(2 * interval)
					if got := shown(); got != blocksLoad(1) {
						t.Fatalf("the worker has %+v", got)
					}
					w.setBehavior(was, 1)
					time.Sleep(5*time.Second + time.Duration(n)*interval/10) // at another time of the round
					isAt("2")
					if got := shown(); got != (fleet.Load{}) {
						t.Errorf("the worker has %+v as it is at a new address", got)
					}
					time.Sleep(2 * interval)
					if got := shown(); got != blocksLoad(2) {
						t.Errorf("the worker has %+v two intervals after it is at a new address", got)
					}
				}
			})
		})
	}
}
