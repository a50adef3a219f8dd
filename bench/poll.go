package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// measurePolls measures the cost of a reply to a poll in the real Poller, compared with
// receiving the same replies and discarding them. Both sides are subprocesses that take
// turns and poll the same workers, which run in this process, over the same server.
func (s *environment) measurePolls(ctx context.Context) error {
	for _, n := range s.sizes() {
		if err := s.measurePollsOf(ctx, n); err != nil {
			return fmt.Errorf("%d workers: %w", n, err)
		}
	}
	return nil
}

// interval returns the time between two polls. It must be long enough for all replies.
func interval(workers int) time.Duration {
	if workers > 1000 {
		return time.Second
	}
	return 100 * time.Millisecond
}

func (s *environment) measurePollsOf(ctx context.Context, workers int) error {
	const least = 5
	polls, most := 15, 2.0
	if s.quick {
		most = 2.5 // on a busy machine the CPU caches hold other processes' data, which slows down the side that does more
	}
	if workers > 1000 {
		polls = 3
	}
	namespace := fmt.Sprintf("bench-poll-%d", workers)
	c, err := startFakeWorkers(ctx, s.nats, s.client, namespace, workers)
	if err != nil {
		return err
	}
	defer c.leave()
	var ours, discarded cost
	for round := 0; round < least || round < extraRounds*least && ours.cpu() > most*discarded.cpu(); round++ {
		for name, best := range map[string]*cost{modePoll: &ours, modeDiscard: &discarded} {
			one, err := s.costOfSubprocess(ctx, name, namespace, workers, polls)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if best.Replies == 0 || one.cpu() < best.cpu() {
				*best = one
			}
		}
	}
	name := fmt.Sprintf("poll of %s workers: ", count(workers))
	ratio := ours.cpu() / discarded.cpu()
	s.table.add(row{
		measure: name + "CPU per reply, compared with nats.go discarding it", ours: nanoseconds(ours.cpu()), baseline: nanoseconds(discarded.cpu()),
		ratio: times(ratio), target: fmt.Sprintf("≤ %g", most), met: ratio <= most, gate: true,
	})
	extra := ours.allocs() - discarded.allocs()
	s.table.add(row{
		measure: name + "allocations per reply", ours: fmt.Sprintf("%.2f", ours.allocs()), baseline: fmt.Sprintf("%.2f", discarded.allocs()),
		ratio: times(ours.allocs() / discarded.allocs()), target: "at most 1 more", met: extra <= 1, gate: true,
	})
	return nil
}

// costOfSubprocess runs one side of the comparison.
func (s *environment) costOfSubprocess(ctx context.Context, name, namespace string, workers, polls int) (cost, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	p, err := s.startSubprocess(ctx, name, "--namespace", namespace, "--workers", fmt.Sprint(workers), "--polls", fmt.Sprint(polls))
	if err != nil {
		return cost{}, err
	}
	<-p.ended
	var c cost
	if err := json.Unmarshal([]byte(p.lastLine()), &c); err != nil || !p.cmd.ProcessState.Success() {
		return cost{}, fmt.Errorf("%v: %s", p.cmd.ProcessState, p.lastLine())
	}
	if ctx.Err() != nil {
		return cost{}, ctx.Err()
	}
	return c, nil
}

// runPoller polls as metrics does. The first poll is not measured.
func (s subprocess) runPoller(ctx context.Context, m *meter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	nc, err := nats.Connect(s.url)
	if err != nil {
		return err
	}
	defer nc.Close()
	f := fleet.New(fleet.Target{}, s.workers, true)
	registered := make(map[string]fleet.InstanceEntry)
	for n := range s.workers {
		for _, in := range instances(n) {
			registered[wire.LayoutInstances.Key(s.namespace, in)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{NATS: true}}
		}
	}
	f.Sync(fleet.Listing{Instances: registered})
	done := 0
	p := &collect.Poller{Conn: nc, Fleet: f, Namespaces: wire.Namespaces(s.namespace), Interval: interval(s.workers), Log: quiet}
	p.OnLoads = func() {
		replies := int(f.Stats.Messages(stats.StatsReply))
		if done == 0 {
			m.start(replies)
		} else if done == s.polls {
			m.stop(replies)
			cancel()
		}
		done++
	}
	return p.Run(ctx)
}

// runDiscarder polls as often as runPoller, and discards the replies.
func (s subprocess) runDiscarder(ctx context.Context, m *meter) error {
	nc, err := nats.Connect(s.url)
	if err != nil {
		return err
	}
	defer nc.Close()
	inbox := nc.NewInbox()
	replies, complete := 0, make(chan int)
	answers, err := nc.Subscribe(inbox, func(answer *nats.Msg) {
		if len(answer.Data) == 0 {
			return // from the server: there are no responders on the subject
		}
		if replies++; replies%s.workers == 0 {
			complete <- replies
		}
	})
	if err != nil {
		return err
	}
	if err := answers.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	tick := time.NewTicker(interval(s.workers))
	defer tick.Stop()
	for number := range s.polls + 1 {
		for _, era := range wire.Eras {
			if err := nc.PublishRequest(wire.StatsSubject(wire.ServiceName(era, s.namespace, component)), inbox, nil); err != nil {
				return err
			}
		}
		select {
		case received := <-complete:
			if number == 0 {
				m.start(received)
			} else if number == s.polls {
				m.stop(received)
			}
		case <-time.After(waitTimeout):
			return errors.New("not every worker has answered")
		case <-ctx.Done():
			return ctx.Err()
		}
		<-tick.C
	}
	return nil
}
