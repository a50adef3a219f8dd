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

// TestZMQMergesKeysOfOnePublisher sets up a publisher under two keys, as written by a proxy that
// supports old and new releases.
func TestZMQMergesKeysOfOnePublisher(t *testing.T) {
	runZMQNetwork(t, 100, func(p *zmqNetwork) {
		const address = "h:1"
		s := p.listen(address)
		n := uint64(0)
		send := func(events int) {
			for range events {
				s.sendHit(5, n, 0x11)
				n++
			}
		}
		p.fleet.Register("", fleet.Instance{Endpoint: backendEndpoint, ID: 0x11}, fleet.Registration{Publishes: true})
		p.fleet.AddChannel("old", hitRateChannel(5, address, fleet.Endpoint{Component: "backend"}))
		time.Sleep(time.Second)
		p.checkPublishers(1, 1, 0)
		send(10)
		p.checkHits(10, 0)
		p.fleet.AddChannel("new", hitRateChannel(5, address, backendEndpoint))
		time.Sleep(time.Second)
		p.checkPublishers(1, 1, 0)
		send(10)
		p.checkHits(20, 0)
		n += 20 // these are lost
		send(1)
		p.checkHits(21, 20)
		p.fleet.RemoveChannel("old")
		time.Sleep(time.Second)
		p.checkPublishers(1, 1, 0)
		n += 3
		send(1)
		p.checkHits(22, 23)
		if n, _ := p.dialCounts(address); n != 1 {
			t.Errorf("connected %d times, want once", n)
		}
		p.fleet.RemoveChannel("new")
		time.Sleep(time.Second)
		p.checkPublishers(0, 0, 0)
		send(5)
		p.checkHits(22, 23)
		p.fleet.AddChannel("new", hitRateChannel(5, address, backendEndpoint)) // the events in between are not missing
		time.Sleep(time.Second)
		send(1)
		p.checkHits(23, 23)
	})
}

// TestZMQSourceChoosesMostSpecificEndpoint adds keys in every order.
func TestZMQSourceChoosesMostSpecificEndpoint(t *testing.T) {
	all := []fleet.Endpoint{{}, {Component: "backend"}, {Component: "backend", Name: "generate"}, {Component: "backend", Name: "other"}, {Component: "zoo"}}
	for first := range all {
		src := newZMQSource(sourceKey{address: "tcp://h:1"})
		for i := range all {
			src.addKey(all[(first+i)%len(all)], 1)
		}
		src.addKey(all[0], 1)
		for _, want := range []int{2, 3, 1, 4, 0} {
			if src.chooseEndpoint(); src.endpoint != all[want] {
				t.Errorf("from %d on: the endpoint is %v, want %v", first, src.endpoint, all[want])
			}
			src.addKey(all[want], -1)
		}
		if src.chooseEndpoint(); src.registryKeys != 1 || src.endpoint != all[0] {
			t.Errorf("%d keys are left, with the endpoint %v", src.registryKeys, src.endpoint)
		}
	}
}

// TestZMQSourceEndpointFollowsKeys checks that the connection stays when the endpoint changes.
func TestZMQSourceEndpointFollowsKeys(t *testing.T) {
	runZMQNetwork(t, 100, func(p *zmqNetwork) {
		p.dropPackets("h:1")
		checkUnreachable := func(want ...fleet.Channel) {
			t.Helper()
			time.Sleep(time.Second)
			if got := fmt.Sprint(p.fleet.Diagnostics.UnreachableSince(time.Now())); got != fmt.Sprint(want) {
				t.Errorf("unreachable: %s, want %v", got, want)
			}
		}
		p.fleet.AddChannel("old", hitRateChannel(5, "h:1", fleet.Endpoint{Component: "backend"}))
		checkUnreachable(hitRateChannel(5, "h:1", fleet.Endpoint{Component: "backend"}))
		p.fleet.AddChannel("new", hitRateChannel(5, "h:1", backendEndpoint))
		checkUnreachable(hitRateChannel(5, "h:1", backendEndpoint))
		p.fleet.RemoveChannel("new")
		checkUnreachable(hitRateChannel(5, "h:1", fleet.Endpoint{Component: "backend"}))
		if n, _ := p.dialCounts("h:1"); n != 1 {
			t.Errorf("dialed %d times in three seconds, want once", n)
		}
		p.fleet.Sync(fleet.Listing{Channels: map[string]fleet.Channel{"new": hitRateChannel(5, "h:1", backendEndpoint), "other": hitRateChannel(6, "h:2", backendEndpoint)}})
		checkUnreachable(hitRateChannel(5, "h:1", backendEndpoint), hitRateChannel(6, "h:2", backendEndpoint))
		p.fleet.Sync(fleet.Listing{})
		checkUnreachable()
	})
}

// TestZMQCountsGapsAcrossReconnect checks that events in an outage are missing, but not those
// while no key announced the publisher.
func TestZMQCountsGapsAcrossReconnect(t *testing.T) {
	runZMQNetwork(t, 100, func(p *zmqNetwork) {
		const address = "h:1"
		s := p.listen(address)
		p.fleet.AddChannel("a", hitRateChannel(5, address, backendEndpoint))
		time.Sleep(time.Second)
		s.sendHit(5, 0, 1)
		p.checkHits(1, 0)
		p.stop(address)
		time.Sleep(time.Minute)
		p.checkPublishers(0, 1, 0)
		s = p.listen(address)
		time.Sleep(10 * time.Second)
		s.sendHit(5, 31, 1)
		p.checkHits(2, 30)
		if n := p.fleet.Stats.Failures(stats.PeerZMQ); n < 10 {
			t.Errorf("%d failures are counted, want one for each attempt", n)
		}
		p.fleet.RemoveChannel("a")
		time.Sleep(time.Second)
		p.fleet.AddChannel("a", hitRateChannel(5, address, backendEndpoint))
		time.Sleep(time.Second)
		s.sendHit(5, 1000, 1)
		p.checkHits(3, 30)
		s.sendHit(5, 1002, 1)
		p.checkHits(4, 31)
	})
}

// TestZMQDialsNoMoreThanSlots sets up more publishers than slots. The others wait, are counted, and
// get the slots of unreachable publishers.
func TestZMQDialsNoMoreThanSlots(t *testing.T) {
	runZMQNetwork(t, 8, func(p *zmqNetwork) {
		const dead = 200
		for i := range dead {
			address := fmt.Sprintf("dead%d:1", i)
			if i%2 == 0 {
				p.dropPackets(address)
			}
			p.fleet.AddChannel(fmt.Sprint("dead", i), hitRateChannel(uint64(1000+i), address, backendEndpoint))
		}
		time.Sleep(time.Second)
		p.checkPublishers(0, dead, dead-8)
		if n := p.fleet.Stats.Refused(stats.SubscriptionLimit); n != dead-8 {
			t.Errorf("%d are counted as over the limit, want %d", n, dead-8)
		}
		time.Sleep(500 * time.Millisecond)     // so that no slot changes at the moment of a check
		for _, want := range []int{8, 8, 16} { // an unreachable publisher keeps its slot for 10 s
			synctest.Wait()
			if n := p.dialedAddresses(); n != want {
				t.Errorf("%d addresses were dialed, want %d", n, want)
			}
			time.Sleep(5 * time.Second)
		}
		for i := range 4 {
			address := fmt.Sprintf("good%d:1", i)
			p.listen(address)
			p.fleet.AddChannel(fmt.Sprint("good", i), hitRateChannel(uint64(1+i), address, backendEndpoint))
		}
		time.Sleep(10 * time.Minute)
		p.checkPublishers(4, dead+4, dead-4)
		if n := p.fleet.Stats.Refused(stats.SubscriptionLimit); n != dead-8+4 {
			t.Errorf("%d are counted as over the limit, want each once", n)
		}
		if n := p.dialedAddresses(); n != dead+4 {
			t.Errorf("%d addresses were dialed, want all", n)
		}
		if n := p.log.Count("There is no room for more ZMQ publishers"); n != 1 {
			t.Errorf("%d log lines say that there is no room, want one:\n%s", n, p.log)
		}
		for i := range dead {
			p.fleet.RemoveChannel(fmt.Sprint("dead", i))
		}
		time.Sleep(time.Second)
		p.checkPublishers(4, 4, 0)
	})
}

// TestZMQBoundsSources sets up more sources than the limit. The others are added once there is
// room.
func TestZMQBoundsSources(t *testing.T) {
	runZMQNetwork(t, 8, func(p *zmqNetwork) {
		var all []string
		for i := range 50 {
			all = append(all, fmt.Sprintf("tcp://broker%d:1", i))
		}
		for i := range 100 { // with fifty brokers each
			p.fleet.AddChannel(fmt.Sprint(i), fleet.Channel{
				Topic: wire.TopicLoad, Publisher: uint64(i), Plane: fleet.BrokerPlane, Address: hostsOf(all, i),
			})
		}
		time.Sleep(2 * time.Second)
		p.checkPublishers(0, 4096, 4096-8)
		if n := p.fleet.Stats.Refused(stats.SubscriptionLimit); n != 5000-8 {
			t.Errorf("%d are counted as over the limit, want %d", n, 5000-8)
		}
		p.listen("h:1")
		p.fleet.AddChannel("late", hitRateChannel(7, "h:1", backendEndpoint))
		for i := range 90 {
			p.fleet.RemoveChannel(fmt.Sprint(i))
		}
		time.Sleep(20 * time.Minute)
		p.checkPublishers(1, 501, 501-8)
		for i := range 100 {
			p.fleet.RemoveChannel(fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		p.checkPublishers(1, 1, 0)
	})
}

// TestZMQRemembersFourSourcesPerSlot uses so many slots that four sources per slot are more than
// the minimum.
func TestZMQRemembersFourSourcesPerSlot(t *testing.T) {
	runZMQNetwork(t, 1050, func(p *zmqNetwork) {
		for i := range 5000 {
			p.fleet.AddChannel(fmt.Sprint(i), hitRateChannel(uint64(i), fmt.Sprintf("h%d:1", i), backendEndpoint))
		}
		time.Sleep(2 * time.Second)
		p.checkPublishers(0, 4200, 4200-1050)
	})
}

// hostsOf returns the addresses with other hosts.
func hostsOf(addresses []string, n int) string {
	var all []string
	for _, a := range addresses {
		all = append(all, strings.Replace(a, ":1", fmt.Sprintf("-%d:1", n), 1))
	}
	return strings.Join(all, ";")
}

// TestZMQBoundsMessageSize checks that the bound for publishers is lower than that for brokers.
func TestZMQBoundsMessageSize(t *testing.T) {
	for most, c := range map[int]fleet.Channel{
		65_536:    hitRateChannel(5, "h:1", backendEndpoint),
		1_048_576: {Topic: wire.TopicHitRate, Plane: fleet.BrokerPlane, Address: "tcp://h:1"},
	} {
		runZMQNetwork(t, 10, func(p *zmqNetwork) {
			s := p.listen("h:1")
			p.fleet.AddChannel("a", c)
			time.Sleep(time.Second)
			failures := func(want uint64) {
				t.Helper()
				synctest.Wait()
				if n := p.fleet.Stats.Failures(stats.PeerZMQ); n != want {
					t.Errorf("%d failures with a limit of %d bytes, want %d", n, most, want)
				}
			}
			topic := []byte(wire.TopicHitRate)
			s.send(topic, make([]byte, most-len(topic)))
			failures(0)
			go s.send(topic, make([]byte, most-len(topic)+1)) // in a goroutine, because it is not read to the end
			time.Sleep(10 * time.Millisecond)
			failures(1)
		})
	}
}

// TestZMQLogsUnreachablePublisherOnce checks that the line comes after the lease of a dead
// publisher would have expired.
func TestZMQLogsUnreachablePublisherOnce(t *testing.T) {
	runZMQNetwork(t, 10, func(p *zmqNetwork) {
		p.fleet.AddChannel("a", hitRateChannel(5, "h:1", backendEndpoint))
		logged := func(want int) {
			t.Helper()
			if n := p.log.Count("A ZMQ publisher is registered but cannot be reached"); n != want {
				t.Errorf("logged %d times, want %d", n, want)
			}
		}
		time.Sleep(44 * time.Second)
		logged(0)
		time.Sleep(2 * time.Second)
		logged(1)
		time.Sleep(10 * time.Minute)
		logged(1)
	})
}

// TestZMQLimitsDialsPerAddress sets up 100 publishers at one address, of which 16 are dialed at the
// same time.
func TestZMQLimitsDialsPerAddress(t *testing.T) {
	runZMQNetwork(t, 400, func(p *zmqNetwork) {
		p.dropPackets("h:1")
		for i := range 100 {
			p.fleet.AddChannel(fmt.Sprint(i), hitRateChannel(uint64(i), "h:1", backendEndpoint))
		}
		p.listen("other:1")
		p.fleet.AddChannel("other", hitRateChannel(1000, "other:1", backendEndpoint))
		time.Sleep(time.Second)
		p.checkPublishers(1, 101, 0)
		time.Sleep(time.Minute)
		if n, most := p.dialCounts("h:1"); n < 100 || most != 16 {
			t.Errorf("%d dials in a minute, and %d at the same time, want at least 100, and 16", n, most)
		}
		s := p.listen("h:1")
		time.Sleep(time.Minute)
		p.checkPublishers(101, 101, 0)
		s.mu.Lock()
		for c := range s.conns { // all reconnect
			c.Close()
		}
		s.mu.Unlock()
		time.Sleep(time.Minute)
		p.checkPublishers(101, 101, 0)
		if _, n := p.dialCounts("h:1"); n != 16 {
			t.Errorf("%d dials at the same time when all reconnect, want 16", n)
		}
	})
}

// TestZMQSeveralBrokersCountNoGaps checks that gaps are counted only while there is one broker.
func TestZMQSeveralBrokersCountNoGaps(t *testing.T) {
	var numbers []string
	z := newSubscribers(NewEvents(fleet.New(fleet.Target{}, 10, true), "dynamo", slog.New(slog.DiscardHandler)), 10)
	receive := func(number uint64) {
		z.deduper.mu.Lock()
		defer z.deduper.mu.Unlock()
		if z.deduper.multipleBrokers {
			numbers = append(numbers, "-")
			return
		}
		numbers = append(numbers, fmt.Sprint(z.deduper.gaps.record(stream{1, stats.LoadEvent}, number).missing))
	}
	brokers := func(n int) fleet.Opt[fleet.Channel] {
		return fleet.Some(fleet.Channel{Plane: fleet.BrokerPlane, Topic: wire.TopicLoad, Address: []string{"tcp://a:1", "tcp://a:1;tcp://b:1"}[n]})
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	change := func(old, new fleet.Opt[fleet.Channel]) {
		z.applyChanges(ended, []fleet.ChannelChange{{Old: old, New: new}}, false)
	}
	none := fleet.Opt[fleet.Channel]{}
	change(none, brokers(0))
	receive(0)
	receive(5)
	change(brokers(0), brokers(1))
	receive(6)
	receive(50)
	change(brokers(1), brokers(0))
	receive(100)
	receive(102)
	change(brokers(0), none)
	change(none, brokers(0))
	receive(1000)
	receive(1001)
	z.stopAll()
	if got := strings.Join(numbers, " "); got != "0 4 - - 0 1 0 0" {
		t.Errorf("missing: %s, want 0 4 - - 0 1 0 0", got)
	}
}
