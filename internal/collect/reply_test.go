package collect

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"

	"github.com/nats-io/nats.go"
)

// offlinePoller returns a Poller without a connection. The test begins the polls and passes the
// replies.
func offlinePoller(f *fleet.Fleet, every time.Duration) *Poller {
	return &Poller{Fleet: f, Namespaces: "dynamo", Interval: every, Log: slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1), services: make(map[string]service)}
}

// TestPollerRejectsLateReply checks that a reply is late after two intervals, but not before
// five seconds.
func TestPollerRejectsLateReply(t *testing.T) {
	for _, c := range []struct{ every, taken, late time.Duration }{
		{10 * time.Millisecond, 5 * time.Second, 5010 * time.Millisecond},
		{2 * time.Second, 5 * time.Second, 5001 * time.Millisecond},
		{5 * time.Second, 10 * time.Second, 10_001 * time.Millisecond},
		{time.Minute, 2 * time.Minute, 2*time.Minute + time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := fleet.New(fleet.Target{Component: "c", Name: "e"}, 1000, true)
			f.Sync(fleet.Listing{})
			f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 7}, fleet.Registration{NATS: true})
			p := offlinePoller(f, c.every)
			number := 0
			poll := func() {
				number = p.beginPoll(time.Now())
				p.targetServices()
			}
			answer := func(poll, load int, shows uint64, rejected uint64) {
				t.Helper()
				p.handleReply(&nats.Msg{Subject: fmt.Sprintf("_INBOX.dynamo-metrics.x.%d", poll), Data: fmt.Appendf(nil, statsReply, "dynamo_c", "dynamo_c.e-7", load)})
				if got := f.Snapshot().Workers[0].Load.V.KVActive.V; got != shows {
					t.Errorf("every %s: the load is %d after a reply to poll %d of %d, want %d", c.every, got, poll, number, shows)
				}
				if got := f.Stats.Rejected(stats.StatsReply, stats.Late); got != rejected {
					t.Errorf("every %s: %d replies were late, want %d", c.every, got, rejected)
				}
			}
			began := time.Now()
			for poll(); time.Since(began)+c.every < c.taken; poll() {
				time.Sleep(c.every)
			}
			time.Sleep(c.taken - time.Since(began))
			answer(1, 10, 10, 0)
			time.Sleep(c.late - c.taken)
			answer(1, 11, 10, 1)
			poll()
			answer(1, 12, 10, 2)
			answer(number, 13, 13, 2)
			answer(number+1, 14, 13, 3) // no such poll
			answer(0, 15, 13, 4)
			time.Sleep(c.every * 3 / 2)
			answer(number, 16, 16, 4) // the next poll has not begun
			if limit := int(c.late/c.every) + 2; len(p.pollStarts) > limit {
				t.Errorf("every %s: %d polls are remembered, want at most %d", c.every, len(p.pollStarts), limit)
			}
		})
	}
}

// TestPollerForgetsRemovedComponents checks that nothing is kept of components that are no
// longer registered, apart from what replies in progress need.
func TestPollerForgetsRemovedComponents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{}, 65_536, true)
		f.Sync(fleet.Listing{})
		p := offlinePoller(f, 2*time.Second)
		poll := func() int {
			time.Sleep(2 * time.Second)
			p.beginPoll(time.Now())
			return len(p.targetServices())
		}
		instance := func(i int) fleet.Instance {
			return fleet.Instance{Endpoint: fleet.Endpoint{Component: fmt.Sprint("gone", i), Name: "e"}, ID: uint64(1 + i)}
		}
		const many = 5000
		for i := range many {
			f.Register("", instance(i), fleet.Registration{NATS: true})
		}
		if n := poll(); n != 3*many {
			t.Errorf("%d services are polled, want %d", n, 3*many)
		}
		for i := range many {
			f.Deregister("", instance(i))
		}
		f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 7}, fleet.Registration{NATS: true})
		if n := poll(); n != 3 || len(p.loggedEndpoints) != 1 {
			t.Errorf("%d services are polled and %d endpoints are logged, want 3 and 1", n, len(p.loggedEndpoints))
		}
		p.handleReply(&nats.Msg{Subject: "x.1", Data: fmt.Appendf(nil, statsReply, "dynamo_gone5", "dynamo_gone5.e-6", 1)})
		if n := f.Stats.Rejected(stats.StatsReply, stats.BadID); n != 0 {
			t.Errorf("%d replies to the previous poll found no service", n)
		}
		poll()
		poll()
		if len(p.services) != 3 {
			t.Errorf("%d services are remembered, want 3", len(p.services))
		}
		for i := range many { // from 0.2.1 on, all have the same service name
			f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: fmt.Sprintf("%c", 0x4e00+i), Name: "e"}, ID: uint64(1 + i)}, fleet.Registration{NATS: true})
		}
		if n := poll(); n != 3+2*many+1 {
			t.Errorf("%d services are polled, want %d", n, 3+2*many+1)
		}
	})
}

func TestPollerPollWaitFollowsInterval(t *testing.T) {
	for every, want := range map[time.Duration]time.Duration{
		10 * time.Millisecond: 100 * time.Millisecond, 300 * time.Millisecond: 300 * time.Millisecond, time.Minute: time.Second,
	} {
		if got := offlinePoller(nil, every).pollWait(); got != want {
			t.Errorf("every %s: a poll waits for %s, want %s", every, got, want)
		}
	}
}

// TestPollerBoundsOtherEndpoints handles replies with many made-up endpoints.
func TestPollerBoundsOtherEndpoints(t *testing.T) {
	f := fleet.New(fleet.Target{Component: "c", Name: "e"}, 1000, true)
	f.Sync(fleet.Listing{})
	p := offlinePoller(f, time.Second)
	p.beginPoll(time.Now())
	p.targetServices()
	for i := range 1000 {
		p.handleReply(&nats.Msg{Subject: "x.1", Data: fmt.Appendf(nil, statsReply, "dynamo_c", fmt.Sprintf("dynamo_c.made-up-%d-7", i), 1)})
	}
	if n := len(p.poll.otherEndpoints); n != 21 {
		t.Errorf("%d endpoints are remembered, want one more than the log names", n)
	}
}

// TestRetryScheduleBacksOff checks that retries are frequent at first, and then less and less.
func TestRetryScheduleBacksOff(t *testing.T) {
	var r retrySchedule
	start := time.Unix(0, 0)
	var tried []time.Duration
	for at := time.Duration(0); at <= 5*time.Minute; at += time.Second {
		if r.due(start.Add(at)) {
			tried = append(tried, at)
		}
	}
	if len(tried) < 20 || tried[0] != time.Second || tried[8] != 9*time.Second {
		t.Fatalf("retried after %v, want every second at first", tried)
	}
	last := len(tried) - 1
	if pause := tried[last] - tried[last-1]; pause != 15*time.Second {
		t.Errorf("at the end retried every %s, want 15 s", pause)
	}
	for i, at := range tried[1:] {
		if pause, most := at-tried[i], max(2*time.Second, tried[i]/8+time.Second); pause > most {
			t.Errorf("after %s it is retried %s later, want at most %s", tried[i], pause, most)
		}
	}
}

// TestPollerGracePeriodAfterReconnect checks when the grace period ends.
func TestPollerGracePeriodAfterReconnect(t *testing.T) {
	p := offlinePoller(nil, time.Second)
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		times   uint64
		after   time.Duration
		settled time.Time
	}{{0, 0, time.Time{}}, {1, time.Minute, start.Add(65 * time.Second)}, {1, 2 * time.Minute, start.Add(65 * time.Second)}, {2, 3 * time.Minute, start.Add(185 * time.Second)}} {
		if p.updateReconnects(c.times, start.Add(c.after)); !p.graceUntil.Equal(c.settled) {
			t.Errorf("after %d reconnections the grace period ends at %s, want %s", c.times, p.graceUntil, c.settled)
		}
	}
}
