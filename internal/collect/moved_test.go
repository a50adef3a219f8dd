package collect

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
)

// TestAPublisherAtANewAddressIsHeardWithinTwoSeconds, as one is that a shadow takes over, or
// a container that was started again: whatever is at its old address and for however long, and
// whichever way the registry says so.
func TestAPublisherAtANewAddressIsHeardWithinTwoSeconds(t *testing.T) {
	const before, after = "before:1", "after:1"
	old, now := of(5, before, ofBackend), of(5, after, ofBackend)
	state := map[string]func(*plane){
		"speaks":            func(p *plane) { p.speaks(before) },
		"has died":          func(p *plane) { p.speaks(before); time.Sleep(time.Second); p.die(before) },
		"refuses":           func(*plane) {},
		"swallows":          func(p *plane) { p.swallow(before) },
		"refused for long":  func(*plane) { time.Sleep(10 * time.Minute) },
		"swallowed as long": func(p *plane) { p.swallow(before); time.Sleep(10 * time.Minute) },
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
				inPlane(t, 100, func(p *plane) {
					p.fleet.AddChannel("a", old)
					await(p)
					time.Sleep(time.Second)
					s := p.speaks(after)
					do(p.fleet)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					s.hit(5, 1000, 0x11) // the first of many that the program was told
					p.hits(1, 0)
					if n, _ := p.dialled(after); n != 1 {
						t.Errorf("the new address was dialled %d times, want once", n)
					}
				})
			})
		}
	}
}

// TestAPublisherThatListensLateIsHeardWithinTwoSeconds after its key came: the pauses at the
// new address begin with the shortest.
func TestAPublisherThatListensLateIsHeardWithinTwoSeconds(t *testing.T) {
	inPlane(t, 100, func(p *plane) {
		p.fleet.AddChannel("a", of(5, "before:1", ofBackend))
		time.Sleep(10 * time.Minute)
		p.fleet.AddChannel("a", of(5, "after:1", ofBackend))
		time.Sleep(time.Second)
		p.speaks("after:1")
		time.Sleep(time.Second)
		p.counts(1, 1, 0)
	})
}

// TestAPageAtANewAddressIsReadWithinTwoIntervals, as that of a new worker is, whatever is at
// the old one: the address is looked up when a round begins, and has its time in the round.
func TestAPageAtANewAddressIsReadWithinTwoIntervals(t *testing.T) {
	const interval = time.Second
	for was := answers; was <= stalls; was++ {
		t.Run(fmt.Sprint(was), func(t *testing.T) {
			inWeb(t, 1, interval, func(w *web) {
				isAt := func(host string) {
					in := fleet.Instance{Endpoint: ofBackend, ID: 1}
					w.fleet.Register("0", in, fleet.Registration{Publishes: true, Transport: host})
				}
				shown := func() fleet.Load { return w.fleet.Snapshot().Workers[0].Load.V }
				for n := range 10 {
					isAt("1")
					w.take(answers, 1)
					time.Sleep(2 * interval)
					if got := shown(); got != inUse(1) {
						t.Fatalf("the worker has %+v", got)
					}
					w.take(was, 1)
					time.Sleep(5*time.Second + time.Duration(n)*interval/10) // at another time of the round
					isAt("2")
					if got := shown(); got != (fleet.Load{}) {
						t.Errorf("the worker has %+v as it is at a new address", got)
					}
					time.Sleep(2 * interval)
					if got := shown(); got != inUse(2) {
						t.Errorf("the worker has %+v two intervals after it is at a new address", got)
					}
				}
			})
		})
	}
}
