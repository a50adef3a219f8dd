//go:build real

package survival

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// nameForger sends made-up names to every input of a program that watches all
// namespaces or components. Beside it there are two control workers: one is polled and has
// hits, the other one publishes.
type nameForger struct {
	*environment
	m       *program
	control string // the namespace of the control workers
	prefix  string // the prefix of made-up namespaces; empty: there are none
	extra   atomic.Pointer[[][]byte]
	polls   atomic.Int64 // polls of the control worker's service
}

const (
	polledID, publishingID = 1, 2
	firstForged            = 1 << 40
)

var (
	polledAt     = fleet.Endpoint{Component: "backend", Name: "generate"}
	publishingAt = fleet.Endpoint{Component: "decode", Name: "generate"}
)

func newNameForger(t *testing.T, namespaces string, args ...string) *nameForger {
	t.Helper()
	f := &nameForger{environment: newEnvironment(t), control: namespaces}
	if prefix, several := strings.CutSuffix(namespaces, "*"); several {
		f.control, f.prefix = prefix+"control", prefix+"made-"
	}
	in := fleet.Instance{Endpoint: polledAt, ID: polledID}
	f.put(wire.LayoutInstances.Key(f.control, in), string(wire.LayoutInstances.Value(f.control, in, "nats")))
	other := fleet.Instance{Endpoint: publishingAt, ID: publishingID}
	for _, e := range []garbage.Entry{garbage.Registration(f.control, other), garbage.Card(f.control, other)} {
		f.put(e.Key, e.Value)
	}
	f.answerPolls()
	f.m = startProgram(t, f.env(), nil, append([]string{"--namespace", namespaces, "--poll-interval", "0.5"}, args...)...)
	f.m.waitFor(func(p samples) error {
		return p.match(samples{f.series(active, polledAt, polledID): "10", f.series("llm_worker_up", publishingAt, publishingID): "0"})
	})
	f.publishEvent(f.control, publishingAt, wire.TopicLoad, garbage.LoadEvent(publishingID, 0, 40))
	f.publishControlHit()
	f.m.waitForSamples(f.expectedOfControl())
	return f
}

// service is the service of the control worker.
func (f *nameForger) service() string {
	return wire.ServiceName(wire.EraPlain, f.control, polledAt.Component)
}

// answerPolls answers each poll for the control worker, and one poll with the forged
// replies.
func (f *nameForger) answerPolls() {
	f.t.Helper()
	control := garbage.StatsReply(f.service(), polledAt.Name, polledID, "control", 10)
	_, err := f.nc.Subscribe(wire.StatsSubject(f.service()), func(m *nats.Msg) {
		_ = m.Respond(control)
		if extra := f.extra.Swap(nil); extra != nil {
			for _, b := range *extra {
				_ = m.Respond(b)
			}
		}
		f.polls.Add(1)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.flush()
}

// series returns a series of one worker.
func (f *nameForger) series(metric string, e fleet.Endpoint, id uint64) string {
	namespace := ""
	if f.prefix != "" {
		namespace = fmt.Sprintf("dynamo_namespace=%q,", f.control)
	}
	return fmt.Sprintf(`%s{component=%q,%sendpoint=%q,worker_id="%d"}`, metric, e.Component, namespace, e.Name, id)
}

// expectedOfControl returns the samples that the control workers must have.
func (f *nameForger) expectedOfControl() samples {
	return samples{
		f.series(active, polledAt, polledID): "10", f.series(total, polledAt, polledID): "1000",
		f.series(overlap, polledAt, polledID): "3", f.series(isl, polledAt, polledID): "12",
		f.series(active, publishingAt, publishingID): "40", f.series(total, publishingAt, publishingID): "1000",
	}
}

func (f *nameForger) publishEvent(namespace string, e fleet.Endpoint, topic string, data []byte) {
	f.t.Helper()
	if err := f.nc.Publish(garbage.Subject(namespace, e, topic), data); err != nil {
		f.t.Fatal(err)
	}
}

func (f *nameForger) publishControlHit() { f.publishHit(polledID, 3) }

func (f *nameForger) publishHit(id uint64, overlap int) {
	f.t.Helper()
	if err := f.nc.Publish(wire.HitRateSubject(f.control), fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, id, 4*overlap, overlap)); err != nil {
		f.t.Fatal(err)
	}
}

// namespace and endpoint return made-up names.
func (f *nameForger) namespace(n int) string {
	if f.prefix == "" {
		return f.control
	}
	return fmt.Sprint(f.prefix, n)
}

func endpoint(n int) fleet.Endpoint {
	return fleet.Endpoint{Component: fmt.Sprint("made-", n), Name: fmt.Sprint("up_", n)}
}

// waitForIncrease runs wave, and waits until the series has increased by n.
func (f *nameForger) waitForIncrease(series string, n int, wave func()) {
	f.t.Helper()
	before := -1.0
	f.m.waitFor(func(p samples) error { before = p.number(series); return nil })
	wave()
	f.flush()
	f.m.waitFor(func(p samples) error {
		if got := p.number(series) - before; got < float64(n) {
			return fmt.Errorf("%s has grown by %v, want %d", series, got, n)
		}
		return nil
	})
}

// publishEvents publishes loads and forward passes of made-up endpoints, with few worker
// ids.
func (f *nameForger) publishEvents(names, ids int) {
	f.t.Helper()
	for topic, event := range map[string]func(uint64) []byte{
		wire.TopicLoad:        func(id uint64) []byte { return garbage.LoadEvent(id, 0, 77) },
		wire.TopicForwardPass: func(id uint64) []byte { return garbage.ForwardPass(id, 0, 1, 0.5) },
	} {
		kind := map[string]stats.Kind{wire.TopicLoad: stats.LoadEvent, wire.TopicForwardPass: stats.ForwardPass}[topic]
		f.waitForIncrease(messagesSeries(kind), names, func() {
			for n := range names {
				f.publishEvent(f.namespace(n), endpoint(n), topic, event(firstForged+uint64(n%ids)))
			}
		})
	}
}

// registerAndLeave registers workers at made-up endpoints, a hundred at a time, publishes a
// load of each, and deregisters them.
func (f *nameForger) registerAndLeave(names int) {
	f.t.Helper()
	const at = 100
	for first := 0; first < names; first += at {
		in := func(n int) (string, fleet.Instance) {
			return f.namespace(n), fleet.Instance{Endpoint: endpoint(n), ID: firstForged + uint64(n)}
		}
		f.waitForIncrease(messagesSeries(stats.InstanceKeys), at, func() {
			f.commitEach(first, at, func(n int) clientv3.Op {
				e := garbage.Registration(in(n))
				return clientv3.OpPut(e.Key, e.Value)
			})
		})
		f.waitForIncrease(messagesSeries(stats.LoadEvent), at, func() {
			for n := first; n < first+at; n++ {
				namespace, instance := in(n)
				f.publishEvent(namespace, instance.Endpoint, wire.TopicLoad, garbage.LoadEvent(instance.ID, 0, 77))
			}
		})
		f.waitForIncrease(messagesSeries(stats.InstanceKeys), at, func() {
			f.commitEach(first, at, func(n int) clientv3.Op { return clientv3.OpDelete(garbage.Registration(in(n)).Key) })
		})
	}
}

// commitEach commits an operation for each of n numbers from first.
func (f *nameForger) commitEach(first, n int, op func(int) clientv3.Op) {
	f.t.Helper()
	for n > 0 {
		var ops []clientv3.Op
		for range min(n, 100) {
			ops = append(ops, op(first))
			first, n = first+1, n-1
		}
		testutil.Until(f.t, func() error {
			ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
			defer cancel()
			_, err := f.ec.Txn(ctx).Then(ops...).Commit()
			return err
		})
	}
}

// putCards writes model cards of made-up endpoints, and deletes them.
func (f *nameForger) putCards(names, ids int) {
	f.t.Helper()
	card := func(n int) garbage.Entry {
		return garbage.Card(f.namespace(n), fleet.Instance{Endpoint: endpoint(n), ID: firstForged + uint64(n%ids)})
	}
	f.waitForIncrease(messagesSeries(stats.CardKeys), names, func() {
		f.commitEach(0, names, func(n int) clientv3.Op { return clientv3.OpPut(card(n).Key, card(n).Value) })
	})
	f.waitForIncrease(messagesSeries(stats.CardKeys), names, func() {
		f.commitEach(0, names, func(n int) clientv3.Op { return clientv3.OpDelete(card(n).Key) })
	})
}

// answerNextPoll answers the next poll for made-up endpoints.
func (f *nameForger) answerNextPoll(names int, id func(n int) (worker uint64, static string)) {
	f.t.Helper()
	var all [][]byte
	for n := range names {
		worker, static := id(n)
		all = append(all, garbage.StatsReply(f.service(), endpoint(n).Name, worker, static, 77))
	}
	f.waitForIncrease(messagesSeries(stats.StatsReply), names, func() { f.extra.Store(&all) })
}

// boundFamilies checks that no family has more series than there may be workers, or
// endpoints in four states, and that the number of the program's own series is constant.
func boundFamilies(workers, endpoints, bytes int) rule {
	return func(_, now samples) error {
		own := 0
		for name, n := range now.families() {
			most := max(workers, 4*endpoints)
			if !strings.HasPrefix(name, "llm_") {
				own += n
				continue
			}
			if n > most {
				return fmt.Errorf("%d series of %s, want at most %d", n, name, most)
			}
		}
		if own > 300 {
			return fmt.Errorf("%d series of the program itself, want at most 300", own)
		}
		if now.number(resident) > float64(bytes) {
			return fmt.Errorf("%s bytes resident, want at most %d", now[resident], bytes)
		}
		return nil
	}
}

// checkSnapshotSize fails the test if the snapshot has more bytes than this.
func (f *nameForger) checkSnapshotSize(most int) {
	f.t.Helper()
	text, err := body(f.m.url + "/api/v1/fleet?history=true")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Logf("/api/v1/fleet: %d bytes", len(text))
	if len(text) > most {
		f.t.Errorf("/api/v1/fleet has %d bytes, want at most %d", len(text), most)
	}
}

func overLimitSeries(l stats.Limit) string {
	return fmt.Sprintf("dynamo_metrics_over_limit_total{kind=%q}", l)
}

// TestForgedNamesAreBounded sends thousands of names of each kind. The number of series,
// the snapshot and the memory are bounded, and everything over the limits is counted.
func TestForgedNamesAreBounded(t *testing.T) {
	for _, namespaces := range []string{"dynamo", "x*"} {
		t.Run(namespaces, func(t *testing.T) {
			const limit, names, ids = 1000, 30_000, 469
			f := newNameForger(t, namespaces, "--max-workers", fmt.Sprint(limit))
			w := f.m.startSampler(always(f.expectedOfControl()), always(samples{queueFull: "0"}), boundFamilies(limit, 1026, 150<<20))

			// For each id the last endpoint that it named waits for a registration. The
			// forward passes replace the loads.
			f.publishEvents(names, ids)
			f.m.waitFor(func(p samples) error {
				rejects := p.number(rejectedSeries(stats.LoadEvent, stats.NotRegistered)) + p.number(rejectedSeries(stats.ForwardPass, stats.NotRegistered))
				if rejects != 2*names-ids {
					return fmt.Errorf("%v events are rejected, want %d", rejects, 2*names-ids)
				}
				if n := p.count("made-"); n > 0 {
					return fmt.Errorf("%d series have made-up names", n)
				}
				return p.match(samples{overLimit: "0"})
			})
			f.checkSnapshotSize(20_000)

			// Static workers are not registered. As many of them are kept as of other
			// workers.
			f.answerNextPoll(3000, func(n int) (uint64, string) { return firstForged + uint64(n), fmt.Sprint("forged-", n) })
			f.answerNextPoll(3000, func(n int) (uint64, string) { return 0, fmt.Sprint("static-", n) })
			f.m.waitFor(func(p samples) error {
				return p.match(samples{rejectedSeries(stats.StatsReply, stats.NotRegistered): "3000", overLimitSeries(stats.WorkerLimit): decimal(3000 - (limit - 2 - ids))})
			})
			f.checkSnapshotSize(1_000_000)
			f.m.waitFor(func(p samples) error { // they reply only once
				if n := p.count("static-"); n > 0 {
					return fmt.Errorf("%d series are of workers that have stopped", n)
				}
				return nil
			})

			// The program remembers the endpoints at which workers were registered: 1,022,
			// and the two of the control workers.
			f.registerAndLeave(3000)
			f.m.waitFor(func(p samples) error { return p.match(samples{overLimitSeries(stats.EndpointLimit): "1978"}) })
			f.checkSnapshotSize(1_000_000)

			f.waitForIncrease(overLimitSeries(stats.EndpointLimit), 3000, func() { f.putCards(3000, ids) })
			f.waitForIncrease(messagesSeries(stats.HitRate), names, func() {
				for n := range names {
					f.publishHit(firstForged+uint64(n), 1)
				}
			})
			f.checkSnapshotSize(1_000_000)
			w.stop()
			f.m.Terminate()
		})
	}
}

// TestForgedNamesAtEveryBound fills all that a client on NATS can fill, with the default
// limits, while /metrics and the snapshot are read. The chart's memory limit is 512 MiB.
func TestForgedNamesAtEveryBound(t *testing.T) {
	const workers = 65_536
	f := newNameForger(t, "dynamo")
	// Some of the control workers are enough to make up ranks for.
	const others = 128
	f.waitForIncrease(messagesSeries(stats.InstanceKeys), others, func() {
		f.commitEach(100, others, func(n int) clientv3.Op {
			e := garbage.Registration(f.control, fleet.Instance{Endpoint: publishingAt, ID: uint64(n)})
			return clientv3.OpPut(e.Key, e.Value)
		})
	})
	peak := 0.0
	w := f.m.startSampler(always(f.expectedOfControl()), func(_, now samples) error {
		if peak = max(peak, now.number(resident)); peak > 512<<20 {
			return fmt.Errorf("%.0f MiB resident, the chart's limit is 512", peak/(1<<20))
		}
		return nil
	})
	f.waitForIncrease(messagesSeries(stats.HitRate), workers, func() {
		for n := range workers {
			f.publishHit(firstForged+uint64(n), 1)
		}
	})
	// The durations of forward passes need the most memory if they differ widely.
	far := func(endpoint fleet.Endpoint, id uint64, rank uint32) {
		f.publishEvent(f.control, endpoint, wire.TopicForwardPass, garbage.ForwardPass(id, rank, 1, 1.1e-6))
		f.publishEvent(f.control, endpoint, wire.TopicForwardPass, garbage.ForwardPass(id, rank, 2, 8000))
	}
	f.waitForIncrease(messagesSeries(stats.ForwardPass), 2*30_000, func() {
		for n := range 30_000 {
			far(endpoint(n), firstForged+uint64(n), 0)
		}
	})
	f.waitForIncrease(messagesSeries(stats.ForwardPass), 2*256*(others+1), func() {
		for rank := range uint32(256) {
			far(publishingAt, publishingID, rank)
			for n := range uint64(others) {
				far(publishingAt, 100+n, rank)
			}
		}
	})
	f.answerNextPoll(6000, func(n int) (uint64, string) { return 0, fmt.Sprint(strings.Repeat("static", 40), n) })
	for range 10 { // each rank is a row of the snapshot
		testutil.Until(t, func() error {
			text, err := body(f.m.url + "/api/v1/fleet?history=true")
			if err == nil && strings.Count(text, `"key":`) < 10_000 {
				err = fmt.Errorf("the snapshot has %d bytes, without the ranks", len(text))
			}
			return err
		})
		f.m.waitForPolls(2)
	}
	p, err := f.m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	t.Logf("%.0f MiB resident at most; %d series; over the limits: %s workers, %s endpoints, %s attachments, %s ranks", peak/(1<<20), len(p),
		p[overLimitSeries(stats.WorkerLimit)], p[overLimitSeries(stats.EndpointLimit)], p[overLimitSeries(stats.AttachmentLimit)], p[overLimitSeries(stats.RankLimit)])
	f.m.Terminate()
}
