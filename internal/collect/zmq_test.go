package collect

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// TestAPublisherUnderTwoKeysIsOne, as a proxy writes them that knows old and new releases.
func TestAPublisherUnderTwoKeysIsOne(t *testing.T) {
	inPlane(t, 100, func(p *plane) {
		const address = "h:1"
		s := p.speaks(address)
		n := uint64(0)
		say := func(events int) {
			for range events {
				s.hit(5, n, 0x11)
				n++
			}
		}
		p.fleet.Register("", fleet.Instance{Endpoint: ofBackend, ID: 0x11}, fleet.Registration{Publishes: true})
		p.fleet.AddChannel("old", of(5, address, fleet.Endpoint{Component: "backend"}))
		time.Sleep(time.Second)
		p.counts(1, 1, 0)
		say(10)
		p.hits(10, 0)
		p.fleet.AddChannel("new", of(5, address, ofBackend))
		time.Sleep(time.Second)
		p.counts(1, 1, 0)
		say(10)
		p.hits(20, 0)
		n += 20 // these are lost
		say(1)
		p.hits(21, 20)
		p.fleet.RemoveChannel("old")
		time.Sleep(time.Second)
		p.counts(1, 1, 0)
		n += 3
		say(1)
		p.hits(22, 23)
		if n, _ := p.dialled(address); n != 1 {
			t.Errorf("connected %d times, want once", n)
		}
		p.fleet.RemoveChannel("new")
		time.Sleep(time.Second)
		p.counts(0, 0, 0)
		say(5)
		p.hits(22, 23)
		p.fleet.AddChannel("new", of(5, address, ofBackend)) // what was said meanwhile was for no one
		time.Sleep(time.Second)
		say(1)
		p.hits(23, 23)
	})
}

// TestThatEndpointIsTakenThatNamesMost, whatever the order of the keys.
func TestThatEndpointIsTakenThatNamesMost(t *testing.T) {
	all := []fleet.Endpoint{{}, {Component: "backend"}, {Component: "backend", Name: "generate"}, {Component: "backend", Name: "other"}, {Component: "zoo"}}
	for first := range all {
		w := newWant(source{address: "tcp://h:1"})
		for i := range all {
			w.announce(all[(first+i)%len(all)], 1)
		}
		w.announce(all[0], 1)
		for _, want := range []int{2, 3, 1, 4, 0} {
			if w.settle(); w.endpoint != all[want] {
				t.Errorf("from %d on: booked at %v, want %v", first, w.endpoint, all[want])
			}
			w.announce(all[want], -1)
		}
		if w.settle(); w.keys != 1 || w.endpoint != all[0] {
			t.Errorf("%d keys are left, of %v", w.keys, w.endpoint)
		}
	}
}

// TestTheEndpointOfAPublisherChangesWithItsKeys, and its connection stays.
func TestTheEndpointOfAPublisherChangesWithItsKeys(t *testing.T) {
	inPlane(t, 100, func(p *plane) {
		p.swallow("h:1")
		shown := func(want ...fleet.Channel) {
			t.Helper()
			time.Sleep(time.Second)
			if got := fmt.Sprint(p.fleet.Diagnostics.UnreachableSince(time.Now())); got != fmt.Sprint(want) {
				t.Errorf("away: %s, want %v", got, want)
			}
		}
		p.fleet.AddChannel("old", of(5, "h:1", fleet.Endpoint{Component: "backend"}))
		shown(of(5, "h:1", fleet.Endpoint{Component: "backend"}))
		p.fleet.AddChannel("new", of(5, "h:1", ofBackend))
		shown(of(5, "h:1", ofBackend))
		p.fleet.RemoveChannel("new")
		shown(of(5, "h:1", fleet.Endpoint{Component: "backend"}))
		if n, _ := p.dialled("h:1"); n != 1 {
			t.Errorf("dialled %d times in three seconds, want once", n)
		}
		p.fleet.Sync(fleet.Listing{Channels: map[string]fleet.Channel{"new": of(5, "h:1", ofBackend), "other": of(6, "h:2", ofBackend)}})
		shown(of(5, "h:1", ofBackend), of(6, "h:2", ofBackend))
		p.fleet.Sync(fleet.Listing{})
		shown()
	})
}

// TestEventsMissingAcrossALostConnectionAreCounted, and those that came to no one because
// no one wanted them are not.
func TestEventsMissingAcrossALostConnectionAreCounted(t *testing.T) {
	inPlane(t, 100, func(p *plane) {
		const address = "h:1"
		s := p.speaks(address)
		p.fleet.AddChannel("a", of(5, address, ofBackend))
		time.Sleep(time.Second)
		s.hit(5, 0, 1)
		p.hits(1, 0)
		p.die(address)
		time.Sleep(time.Minute)
		p.counts(0, 1, 0)
		s = p.speaks(address)
		time.Sleep(10 * time.Second)
		s.hit(5, 31, 1)
		p.hits(2, 30)
		if n := p.fleet.Stats.Failures(stats.PeerZMQ); n < 10 {
			t.Errorf("%d failures are counted, want one for each attempt", n)
		}
		p.fleet.RemoveChannel("a")
		time.Sleep(time.Second)
		p.fleet.AddChannel("a", of(5, address, ofBackend))
		time.Sleep(time.Second)
		s.hit(5, 1000, 1)
		p.hits(3, 30)
		s.hit(5, 1002, 1)
		p.hits(4, 31)
	})
}

// TestWhatTheRegistryNamesDoesNotDecideHowManyAreDialled: who finds no place waits, is
// counted, and takes the place of one that is out of reach.
func TestWhatTheRegistryNamesDoesNotDecideHowManyAreDialled(t *testing.T) {
	inPlane(t, 8, func(p *plane) {
		const dead = 200
		for i := range dead {
			address := fmt.Sprintf("dead%d:1", i)
			if i%2 == 0 {
				p.swallow(address)
			}
			p.fleet.AddChannel(fmt.Sprint("dead", i), of(uint64(1000+i), address, ofBackend))
		}
		time.Sleep(time.Second)
		p.counts(0, dead, dead-8)
		if n := p.fleet.Stats.Refused(stats.SubscriptionLimit); n != dead-8 {
			t.Errorf("%d are counted as turned away, want %d", n, dead-8)
		}
		time.Sleep(500 * time.Millisecond)     // so that no turn ends just when it is looked at
		for _, want := range []int{8, 8, 16} { // every place is one's who is out of reach for 10 s
			synctest.Wait()
			if n := p.addresses(); n != want {
				t.Errorf("%d are dialled, want %d", n, want)
			}
			time.Sleep(5 * time.Second)
		}
		for i := range 4 {
			address := fmt.Sprintf("good%d:1", i)
			p.speaks(address)
			p.fleet.AddChannel(fmt.Sprint("good", i), of(uint64(1+i), address, ofBackend))
		}
		time.Sleep(10 * time.Minute)
		p.counts(4, dead+4, dead-4)
		if n := p.fleet.Stats.Refused(stats.SubscriptionLimit); n != dead-8+4 {
			t.Errorf("%d are counted as turned away, want each once", n)
		}
		if n := p.addresses(); n != dead+4 {
			t.Errorf("%d were tried, want all", n)
		}
		if n := p.log.Count("There is no room for more ZMQ publishers"); n != 1 {
			t.Errorf("said %d times that there is no room:\n%s", n, p.log)
		}
		for i := range dead {
			p.fleet.RemoveChannel(fmt.Sprint("dead", i))
		}
		time.Sleep(time.Second)
		p.counts(4, 4, 0)
	})
}

// TestWhatTheRegistryNamesIsNotAllRemembered, and what was not is looked for again once there
// is room.
func TestWhatTheRegistryNamesIsNotAllRemembered(t *testing.T) {
	inPlane(t, 8, func(p *plane) {
		var all []string
		for i := range 50 {
			all = append(all, fmt.Sprintf("tcp://broker%d:1", i))
		}
		for i := range 100 { // of fifty brokers each
			p.fleet.AddChannel(fmt.Sprint(i), fleet.Channel{
				Topic: wire.TopicLoad, Publisher: uint64(i), Plane: fleet.BrokerPlane, Address: others(all, i),
			})
		}
		time.Sleep(2 * time.Second)
		p.counts(0, 4096, 4096-8)
		if n := p.fleet.Stats.Refused(stats.SubscriptionLimit); n != 5000-8 {
			t.Errorf("%d are counted as turned away, want %d", n, 5000-8)
		}
		p.speaks("h:1")
		p.fleet.AddChannel("late", of(7, "h:1", ofBackend))
		for i := range 90 {
			p.fleet.RemoveChannel(fmt.Sprint(i))
		}
		time.Sleep(20 * time.Minute)
		p.counts(1, 501, 501-8)
		for i := range 100 {
			p.fleet.RemoveChannel(fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		p.counts(1, 1, 0)
	})
}

// TestFourForEachPlaceAreRemembered where that is more.
func TestFourForEachPlaceAreRemembered(t *testing.T) {
	inPlane(t, 1050, func(p *plane) {
		for i := range 5000 {
			p.fleet.AddChannel(fmt.Sprint(i), of(uint64(i), fmt.Sprintf("h%d:1", i), ofBackend))
		}
		time.Sleep(2 * time.Second)
		p.counts(0, 4200, 4200-1050)
	})
}

// others are addresses at hosts of their own.
func others(addresses []string, n int) string {
	var all []string
	for _, a := range addresses {
		all = append(all, strings.Replace(a, ":1", fmt.Sprintf("-%d:1", n), 1))
	}
	return strings.Join(all, ";")
}

// TestEventsOverZMQAreBounded in their size, more so where a publisher sends its own.
func TestEventsOverZMQAreBounded(t *testing.T) {
	for most, c := range map[int]fleet.Channel{
		65_536:    of(5, "h:1", ofBackend),
		1_048_576: {Topic: wire.TopicHitRate, Plane: fleet.BrokerPlane, Address: "tcp://h:1"},
	} {
		inPlane(t, 10, func(p *plane) {
			s := p.speaks("h:1")
			p.fleet.AddChannel("a", c)
			time.Sleep(time.Second)
			failures := func(want uint64) {
				t.Helper()
				synctest.Wait()
				if n := p.fleet.Stats.Failures(stats.PeerZMQ); n != want {
					t.Errorf("%d failures where %d bytes are allowed, want %d", n, most, want)
				}
			}
			topic := []byte(wire.TopicHitRate)
			s.say(topic, make([]byte, most-len(topic)))
			failures(0)
			go s.say(topic, make([]byte, most-len(topic)+1)) // is not read to the end
			time.Sleep(10 * time.Millisecond)
			failures(1)
		})
	}
}

// TestAPublisherOutOfReachIsSaidOnce it has been so for as long as no lease lives.
func TestAPublisherOutOfReachIsSaidOnce(t *testing.T) {
	inPlane(t, 10, func(p *plane) {
		p.fleet.AddChannel("a", of(5, "h:1", ofBackend))
		said := func(want int) {
			t.Helper()
			if n := p.log.Count("A ZMQ publisher is announced and cannot be reached"); n != want {
				t.Errorf("said %d times, want %d", n, want)
			}
		}
		time.Sleep(44 * time.Second)
		said(0)
		time.Sleep(2 * time.Second)
		said(1)
		time.Sleep(10 * time.Minute)
		said(1)
	})
}

// TestOneAddressIsNotStormed: 16 connect at once, and the others after them.
func TestOneAddressIsNotStormed(t *testing.T) {
	inPlane(t, 400, func(p *plane) {
		p.swallow("h:1")
		for i := range 100 {
			p.fleet.AddChannel(fmt.Sprint(i), of(uint64(i), "h:1", ofBackend))
		}
		p.speaks("other:1")
		p.fleet.AddChannel("other", of(1000, "other:1", ofBackend))
		time.Sleep(time.Second)
		p.counts(1, 101, 0)
		time.Sleep(time.Minute)
		if n, most := p.dialled("h:1"); n < 100 || most != 16 {
			t.Errorf("%d have been tried in a minute, and %d at once, want all, and 16", n, most)
		}
		s := p.speaks("h:1")
		time.Sleep(time.Minute)
		p.counts(101, 101, 0)
		s.mu.Lock()
		for c := range s.conns { // all come back
			c.Close()
		}
		s.mu.Unlock()
		time.Sleep(time.Minute)
		p.counts(101, 101, 0)
		if _, n := p.dialled("h:1"); n != 16 {
			t.Errorf("%d connect at once when all come back, want 16", n)
		}
	})
}

// TestBrokersCountForThemselves: what came by others, or could not come, is not missing.
func TestBrokersCountForThemselves(t *testing.T) {
	var numbers []string
	z := newSubscribers(NewEvents(fleet.New(fleet.Target{}, 10, true), "dynamo", slog.New(slog.DiscardHandler)), 10)
	arrives := func(number uint64) {
		z.copies.mu.Lock()
		defer z.copies.mu.Unlock()
		if z.copies.several {
			numbers = append(numbers, "-")
			return
		}
		numbers = append(numbers, fmt.Sprint(z.copies.sequences.arrives(stream{1, stats.LoadEvent}, number).missing))
	}
	of := func(n int) fleet.Opt[fleet.Channel] {
		return fleet.Some(fleet.Channel{Plane: fleet.BrokerPlane, Topic: wire.TopicLoad, Address: []string{"tcp://a:1", "tcp://a:1;tcp://b:1"}[n]})
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	follow := func(old, new fleet.Opt[fleet.Channel]) {
		z.follow(ended, []fleet.ChannelChange{{Old: old, New: new}}, false)
	}
	none := fleet.Opt[fleet.Channel]{}
	follow(none, of(0))
	arrives(0)
	arrives(5)
	follow(of(0), of(1))
	arrives(6)
	arrives(50)
	follow(of(1), of(0))
	arrives(100)
	arrives(102)
	follow(of(0), none)
	follow(none, of(0))
	arrives(1000)
	arrives(1001)
	z.stopAll()
	if got := strings.Join(numbers, " "); got != "0 4 - - 0 1 0 0" {
		t.Errorf("missing: %s, want 0 4 - - 0 1 0 0", got)
	}
}
