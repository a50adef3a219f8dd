package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// pollerTest is a Fleet that is polled over an embedded NATS server.
type pollerTest struct {
	*devstacktest.Stack
	t     *testing.T
	fleet *fleet.Fleet
	nats  *nats.Conn // the workers' connection
	conn  *nats.Conn // the program's connection
}

func newPollerTest(t *testing.T, target fleet.Target) *pollerTest {
	t.Helper()
	s := devstacktest.Start(t)
	f := fleet.New(target, 1000, true)
	f.Sync(fleet.Listing{})
	return &pollerTest{s, t, f, s.Conn(t), s.Conn(t)}
}

// run runs loop until the test ends.
func (b *pollerTest) run(loop func(context.Context) error) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := loop(ctx); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(func() { cancel(); running.Wait() })
}

func (b *pollerTest) startPoller(every time.Duration) {
	p := &Poller{Conn: b.conn, Fleet: b.fleet, Namespaces: "dynamo", Interval: every, Log: slog.New(slog.DiscardHandler)}
	b.run(p.Run)
}

// respond makes a worker respond to the polls of a service.
func (b *pollerTest) respond(service, format string, args ...any) {
	b.t.Helper()
	reply := fmt.Appendf(nil, format, args...)
	_, err := b.nats.Subscribe(wire.StatsSubject(service), func(m *nats.Msg) { m.Respond(reply) })
	if err = errors.Join(err, b.nats.Flush()); err != nil {
		b.t.Fatal(err)
	}
}

// waitWorkers waits until the Fleet has exactly these workers, each as
// component/endpoint/id=active.
func (b *pollerTest) waitWorkers(want ...string) {
	b.t.Helper()
	testutil.Until(b.t, func() error {
		var got []string
		for _, w := range b.fleet.Snapshot().Workers {
			got = append(got, fmt.Sprintf("%s/%s=%d", w.Endpoint, w.Label, w.Load.V.KVActive.V))
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			return fmt.Errorf("the fleet shows %v, want %v", got, want)
		}
		return nil
	})
}

const statsReply = `{"type":"io.nats.micro.v1.stats_response","name":"%s","id":"x","endpoints":[{"subject":"%s","data":{"kv_active_blocks":%d,"kv_total_blocks":9}}]}`

func TestPollerSeparatesComponentsOfOneService(t *testing.T) {
	b := newPollerTest(t, fleet.Target{})
	for id, component := range map[uint64]string{1: "Decode", 2: "decode"} {
		b.fleet.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: "e"}, ID: id}, fleet.Registration{NATS: true})
		b.respond("dynamo_decode", statsReply, "dynamo_decode", fmt.Sprintf("dynamo_decode.e-%d", id), id)
	}
	b.startPoller(50 * time.Millisecond)
	b.waitWorkers("Decode/e/1=1", "decode/e/2=2")
}

func TestPollerIgnoresUnwatchedComponentOfService(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "decode", Name: "e"})
	for id, component := range map[uint64]string{1: "Decode", 2: "decode"} {
		b.fleet.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: "e"}, ID: id}, fleet.Registration{NATS: true})
		b.respond("dynamo_decode", statsReply, "dynamo_decode", fmt.Sprintf("dynamo_decode.e-%d", id), id)
	}
	b.startPoller(50 * time.Millisecond)
	b.waitWorkers("decode/e/2=2")
	if n := b.fleet.Snapshot().Endpoints[0].Unregistered; n != 0 {
		t.Errorf("%d unregistered, want none: it is registered elsewhere", n)
	}
}

func TestPollerCountsInvalidReplies(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "c", Name: "e"})
	b.fleet.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 7}, fleet.Registration{NATS: true})
	for _, reply := range []string{
		"garbage", `[]`, strings.Repeat("[", 100_000),
		`{"type":"io.nats.micro.v1.stats_response","name":"another","id":"x","endpoints":[]}`,
		`{"type":"io.nats.micro.v1.stats_response","name":"dynamo_c","id":"x","endpoints":[{"subject":"elsewhere.e-7"}]}`,
		`{"type":"io.nats.micro.v1.stats_response","name":"dynamo_c","id":"123","endpoints":[{"subject":"dynamo_c.e"}]}`,
	} {
		b.respond("dynamo_c", "%s", reply)
	}
	b.respond("dynamo_c", statsReply, "dynamo_c", "dynamo_c.e-7", 5)
	b.startPoller(50 * time.Millisecond)
	b.waitWorkers("c/e/7=5")
	counts := &b.fleet.Stats
	testutil.Until(t, func() error {
		for reason, least := range map[stats.Reason]uint64{stats.BadJSON: 3, stats.BadID: 1, stats.BadName: 2} {
			if got := counts.Rejected(stats.StatsReply, reason); got < least {
				return fmt.Errorf("%d rejected for %s, want at least %d", got, reason, least)
			}
		}
		return nil
	})
}

func TestPollerAppliesReplyAfterDeadline(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "c", Name: "e"})
	b.fleet.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 7}, fleet.Registration{NATS: true})
	first := make(chan string, 1) // the inbox of the first poll
	_, err := b.nats.Subscribe(wire.StatsSubject("dynamo_c"), func(m *nats.Msg) {
		select {
		case first <- m.Reply:
		default:
		}
	})
	if err = errors.Join(err, b.nats.Flush()); err != nil {
		t.Fatal(err)
	}
	b.startPoller(20 * time.Millisecond)
	testutil.Until(t, func() error {
		if n := b.fleet.Stats.Polls(stats.PollEmpty); n < 3 {
			return fmt.Errorf("%d polls, want three", n)
		}
		return nil
	})
	if err := b.nats.Publish(<-first, fmt.Appendf(nil, statsReply, "dynamo_c", "dynamo_c.e-7", 5)); err != nil {
		t.Fatal(err)
	}
	b.waitWorkers("c/e/7=5")
}

// TestPollerPollNowSkipsInterval would hang if a poll waited for the interval, or if the polls
// in the grace period were no more frequent than others.
func TestPollerPollNowSkipsInterval(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "c", Name: "e"})
	b.fleet.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 7}, fleet.Registration{NATS: true})
	p := &Poller{Conn: b.conn, Fleet: b.fleet, Namespaces: "dynamo", Interval: time.Hour, PollNow: make(chan struct{}, 1), Log: slog.New(slog.DiscardHandler)}
	b.run(p.Run)
	polls := func(least uint64) {
		t.Helper()
		testutil.Until(t, func() error {
			if n := b.fleet.Stats.Polls(stats.PollEmpty); n < least {
				return fmt.Errorf("%d polls, want %d", n, least)
			}
			return nil
		})
	}
	polls(1)
	p.PollNow <- struct{}{}
	polls(2)
	b.StopNATS()
	b.StartNATS(t)
	testutil.Until(t, func() error {
		if !b.conn.IsConnected() || b.conn.Stats().Reconnects == 0 {
			return errors.New("it has not reconnected")
		}
		return nil
	})
	p.PollNow <- struct{}{}
	polls(3)
	b.respond("dynamo_c", statsReply, "dynamo_c", "dynamo_c.e-7", 5) // a worker that reconnects later than the program
	b.waitWorkers("c/e/7=5")
}

// TestPollerEndsPollWhenAllAnswered would hang if a poll waited for its deadline.
func TestPollerEndsPollWhenAllAnswered(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "c", Name: "e"})
	p := &Poller{Conn: b.conn, Fleet: b.fleet, Namespaces: "dynamo", Log: slog.New(slog.DiscardHandler)}
	if err := p.Listen(b.conn); err != nil {
		t.Fatal(err)
	}
	poll := func() {
		number := p.beginPoll(time.Now())
		services := p.targetServices()
		inbox := fmt.Sprintf("%s.%d", p.inbox, number)
		b.fleet.BeginPoll()
		if err := p.sendRequests(t.Context(), services, inbox, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		p.awaitReplies(t.Context(), time.Now().Add(time.Hour))
		b.fleet.EndPoll(true)
	}
	poll() // NATS reports no responders for every service
	for id := range uint64(3) {
		b.fleet.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: id + 1}, fleet.Registration{NATS: true})
		b.respond("dynamo_c", statsReply, "dynamo_c", fmt.Sprintf("dynamo_c.e-%d", id+1), id)
	}
	poll() // every registered worker has answered
	b.waitWorkers("c/e/1=0", "c/e/2=1", "c/e/3=2")
}

func TestEventsRecordHitRatesAndCountGarbage(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "c", Name: "e"})
	b.run(func(ctx context.Context) error {
		return NewEvents(b.fleet, "dynamo", slog.New(slog.DiscardHandler)).NATS(ctx, b.conn, func() {})
	})
	subject := wire.HitRateSubject("dynamo")
	testutil.Until(t, func() error {
		err := b.nats.Publish(subject, []byte("garbage"))
		if err == nil && b.fleet.Stats.Rejected(stats.HitRate, stats.BadJSON) == 0 {
			err = errors.New("not received yet")
		}
		return err
	})
	const events = 50_000
	for i := range events {
		if err := b.nats.Publish(subject, fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":3,"overlap_blocks":1}`, 1+i%10)); err != nil {
			t.Fatal(err)
		}
	}
	testutil.Until(t, func() error {
		var sum fleet.Hits
		for _, w := range b.fleet.Snapshot().Workers {
			sum.Events += w.Hits.V.Events
			sum.ISLBlocks += w.Hits.V.ISLBlocks
			sum.OverlapBlocks += w.Hits.V.OverlapBlocks
		}
		if want := (fleet.Hits{ISLBlocks: 3 * events, OverlapBlocks: events, Events: events}); sum != want {
			return fmt.Errorf("recorded %+v, want %+v", sum, want)
		}
		return nil
	})
	if n := b.fleet.Stats.Dropped(stats.QueueFull); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

func TestDropCounterCountsClientDrops(t *testing.T) {
	b := newPollerTest(t, fleet.Target{Component: "c", Name: "e"})
	busy, hold := make(chan struct{}, 10), make(chan struct{})
	sub, err := b.conn.Subscribe("x", func(*nats.Msg) { busy <- struct{}{}; <-hold })
	if err = errors.Join(err, sub.SetPendingLimits(2, -1), b.conn.Flush(), b.nats.Publish("x", nil)); err != nil {
		t.Fatal(err)
	}
	<-busy
	for range 9 {
		b.nats.Publish("x", nil)
	}
	drops := dropCounter{subscription: sub, stats: &b.fleet.Stats}
	testutil.Until(t, func() error {
		drops.count()
		// One is being handled, which counts as pending, and one is waiting.
		if got := b.fleet.Stats.Dropped(stats.QueueFull); got != 8 {
			return fmt.Errorf("%d dropped, want 8", got)
		}
		return nil
	})
	close(hold)
}
