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

// offline is a Poller without a connection: the test is the polls and the answers.
func offlinePoller(f *fleet.Fleet, every time.Duration) *Poller {
	return &Poller{Fleet: f, Namespaces: "dynamo", Interval: every, Log: slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1), services: make(map[string]service)}
}

// TestPollerRejectsLateReply: one that is later than two intervals, and than
// five seconds, says what was.
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
					t.Errorf("every %s: the load is %d after an answer to poll %d of %d, want %d", c.every, got, poll, number, shows)
				}
				if got := f.Stats.Rejected(stats.StatsReply, stats.Late); got != rejected {
					t.Errorf("every %s: %d answers came too late, want %d", c.every, got, rejected)
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
			answer(number+1, 14, 13, 3) // of no poll
			answer(0, 15, 13, 4)
			time.Sleep(c.every * 3 / 2)
			answer(number, 16, 16, 4) // there is no other yet
			if limit := int(c.late/c.every) + 2; len(p.pollStarts) > limit {
				t.Errorf("every %s: %d polls are remembered, want at most %d", c.every, len(p.pollStarts), limit)
			}
		})
	}
}

// TestPollerForgetsRemovedComponents: components that were registered once leave nothing,
// and answers that are under way still find theirs.
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
		of := func(i int) fleet.Instance {
			return fleet.Instance{Endpoint: fleet.Endpoint{Component: fmt.Sprint("gone", i), Name: "e"}, ID: uint64(1 + i)}
		}
		const many = 5000
		for i := range many {
			f.Register("", of(i), fleet.Registration{NATS: true})
		}
		if n := poll(); n != 3*many {
			t.Errorf("%d services are asked, want %d", n, 3*many)
		}
		for i := range many {
			f.Deregister("", of(i))
		}
		f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 7}, fleet.Registration{NATS: true})
		if n := poll(); n != 3 || len(p.loggedEndpoints) != 1 {
			t.Errorf("%d services are asked and %d endpoints are said, want 3 and 1", n, len(p.loggedEndpoints))
		}
		p.handleReply(&nats.Msg{Subject: "x.1", Data: fmt.Appendf(nil, statsReply, "dynamo_gone5", "dynamo_gone5.e-6", 1)})
		if n := f.Stats.Rejected(stats.StatsReply, stats.BadID); n != 0 {
			t.Errorf("%d answers of the poll before found no service", n)
		}
		poll()
		poll()
		if len(p.services) != 3 {
			t.Errorf("%d services are remembered, want 3", len(p.services))
		}
		for i := range many { // all of one name from 0.2.1 on
			f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: fmt.Sprintf("%c", 0x4e00+i), Name: "e"}, ID: uint64(1 + i)}, fleet.Registration{NATS: true})
		}
		if n := poll(); n != 3+2*many+1 {
			t.Errorf("%d services are asked, want %d", n, 3+2*many+1)
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

// TestPollerBoundsOtherEndpoints, however many an answer makes up.
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
		t.Errorf("%d endpoints are remembered, want one more than are named", n)
	}
}

// TestRetryScheduleBacksOff soon at first, and then more seldom.
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
		t.Fatalf("tried after %v, want each second at first", tried)
	}
	last := len(tried) - 1
	if pause := tried[last] - tried[last-1]; pause != 15*time.Second {
		t.Errorf("at last tried each %s, want 15 s", pause)
	}
	for i, at := range tried[1:] {
		if pause, most := at-tried[i], max(2*time.Second, tried[i]/8+time.Second); pause > most {
			t.Errorf("after %s it is tried %s later, want at most %s", tried[i], pause, most)
		}
	}
}

// TestPollerGracePeriodAfterReconnect: so long no poll counts that they do not answer.
func TestPollerGracePeriodAfterReconnect(t *testing.T) {
	p := offlinePoller(nil, time.Second)
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		times   uint64
		after   time.Duration
		settled time.Time
	}{{0, 0, time.Time{}}, {1, time.Minute, start.Add(65 * time.Second)}, {1, 2 * time.Minute, start.Add(65 * time.Second)}, {2, 3 * time.Minute, start.Add(185 * time.Second)}} {
		if p.updateReconnects(c.times, start.Add(c.after)); !p.graceUntil.Equal(c.settled) {
			t.Errorf("after %d reconnections polls count from %s on, want %s", c.times, p.graceUntil, c.settled)
		}
	}
}
