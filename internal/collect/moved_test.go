package collect

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
)

// TestZMQFollowsMovedPublisherInTwoSeconds sets up a publisher with a new address, as after a
// takeover by a shadow worker or a container restart. Whatever is at the old address, and
// however the registry changes, its events arrive within two seconds.
func TestZMQFollowsMovedPublisherInTwoSeconds(t *testing.T) {
	const before, after = "before:1", "after:1"
	old, now := hitRateChannel(5, before, backendEndpoint), hitRateChannel(5, after, backendEndpoint)
	state := map[string]func(*zmqNetwork){
		"listens":                 func(p *zmqNetwork) { p.listen(before) },
		"has stopped":             func(p *zmqNetwork) { p.listen(before); time.Sleep(time.Second); p.stop(before) },
		"refuses":                 func(*zmqNetwork) {},
		"drops packets":           func(p *zmqNetwork) { p.dropPackets(before) },
		"refused for long":        func(*zmqNetwork) { time.Sleep(10 * time.Minute) },
		"dropped packets as long": func(p *zmqNetwork) { p.dropPackets(before); time.Sleep(10 * time.Minute) },
	}
	change := map[string]func(*fleet.Fleet){
		"its key has another value":    func(f *fleet.Fleet) { f.AddChannel("a", now) },
		"another key is there, too":    func(f *fleet.Fleet) { f.AddChannel("b", now) },
		"another key replaces it":      func(f *fleet.Fleet) { f.AddChannel("b", now); f.RemoveChannel("a") },
		"its key was deleted":          func(f *fleet.Fleet) { f.RemoveChannel("a"); time.Sleep(time.Minute); f.AddChannel("a", now) },
		"the registry is listed again": func(f *fleet.Fleet) { f.Sync(fleet.Listing{Channels: map[string]fleet.Channel{"a": now}}) },
	}
	for oldState, setUp := range state {
		for name, apply := range change {
			t.Run(oldState+", "+name, func(t *testing.T) {
				runZMQNetwork(t, 100, func(p *zmqNetwork) {
					p.fleet.AddChannel("a", old)
					setUp(p)
					time.Sleep(time.Second)
					s := p.listen(after)
					apply(p.fleet)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					s.sendHit(5, 1000, 0x11) // numbers before the first event are not missing
					p.checkHits(1, 0)
					if n, _ := p.dialCounts(after); n != 1 {
						t.Errorf("the new address was dialed %d times, want once", n)
					}
				})
			})
		}
	}
}

// TestZMQConnectsToLatePublisherInTwoSeconds sets up a publisher that listens some time after its
// key was written. The pauses between attempts start short at a new address.
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

// TestScraperFollowsMovedWorkerInTwoIntervals sets up a worker with a new address. Whatever is at
// the old one, its metrics are read within two intervals, because each round looks up the
// addresses again.
func TestScraperFollowsMovedWorkerInTwoIntervals(t *testing.T) {
	const interval = time.Second
	for was := responds; was <= stalls; was++ {
		t.Run(fmt.Sprint(was), func(t *testing.T) {
			runMetricsNetwork(t, 1, interval, func(w *metricsNetwork) {
				moveTo := func(host string) {
					in := fleet.Instance{Endpoint: backendEndpoint, ID: 1}
					w.fleet.Register("0", in, fleet.Registration{Publishes: true, Transport: host})
				}
				load := func() fleet.Load { return w.fleet.Snapshot().Workers[0].Load.V }
				for n := range 10 {
					moveTo("1")
					w.setBehavior(responds, 1)
					time.Sleep(2 * interval)
					if got := load(); got != blocksLoad(1) {
						t.Fatalf("the worker has %+v", got)
					}
					w.setBehavior(was, 1)
					time.Sleep(5*time.Second + time.Duration(n)*interval/10) // at different times in the round
					moveTo("2")
					if got := load(); got != (fleet.Load{}) {
						t.Errorf("the worker has %+v right after its address changed, want nothing", got)
					}
					time.Sleep(2 * interval)
					if got := load(); got != blocksLoad(2) {
						t.Errorf("the worker has %+v two intervals after its address changed", got)
					}
				}
			})
		})
	}
}
