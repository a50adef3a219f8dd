package e2e

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// startMocksOfThreeReleases runs workers of 0.6.1, of 0.9.1 on NATS and of 1.6.1 on ZMQ,
// and waits until they are shown with 10, 20 and 30 active blocks.
func (s *stack) startMocksOfThreeReleases() (m *server, all []*mockWorker) {
	s.t.Helper()
	var scripts []*mockScript
	for _, kind := range [][2]string{{"0.6.1", mock.NATS}, {"0.9.1", mock.NATS}, {"1.6.1", mock.ZMQ}} {
		p := &mockScript{load: loadOf(1, 1, 1)}
		scripts = append(scripts, p)
		all = append(all, s.mock(p.config(kind[0], kind[1])))
	}
	m = s.metrics("--poll-interval", "0.1")
	m.waitForPublishers(2, 0)
	m.waitForNATSEvents()
	want := samples{workersSeries("generate", "answering"): "3"}
	for i, w := range all {
		scripts[i].setLoad(loadOf(2, 2, uint64(10+10*i)))
		want[w.series("llm_kv_blocks_active")] = fmt.Sprint(10 + 10*i)
	}
	m.waitForSamples(want)
	return m, all
}

func TestPublishingWorkerDeregisteredIsGone(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m, all := s.startMocksOfThreeReleases()
	for i, w := range all {
		w.stop(nil)
		m.waitFor(func(p samples) error { return p.matchNoneOf(w.id) })
		for _, other := range all[i+1:] {
			m.waitForSamples(samples{other.series("llm_worker_up"): "1"})
		}
		m.waitForSamples(samples{workersSeries("generate", "answering"): fmt.Sprint(2 - i), workersSeries("generate", "unregistered"): "0"})
	}
	m.waitForSamples(samples{
		`llm_load_avg{` + backend + `}`:                          "",
		`dynamo_metrics_zmq_publishers{state="connected"}`:       "0",
		`dynamo_metrics_zmq_publishers{state="disconnected"}`:    "0",
		`dynamo_metrics_rejected_messages_total{kind="channel"}`: "",
	})
}

func TestPublishingWorkerKilledIsGoneWithItsLease(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m, all := s.startMocksOfThreeReleases()
	for _, w := range all {
		// The test alone ends the lease, however long it takes.
		if _, err := s.etcd.KeepAlive(t.Context(), clientv3.LeaseID(w.id)); err != nil {
			t.Fatal(err)
		}
		w.stop(mock.ErrKilled)
	}
	m.waitForPublishers(0, 2)
	// A published load lives as long as the registration, because nothing else shows that
	// it is out of date. The worker of 0.6.1 is an exception: it has answered polls, and
	// does not any more.
	m.waitForSamples(samples{
		workersSeries("generate", "answering"): "2",
		workersSeries("generate", "silent"):    "1",
		all[0].series("llm_kv_blocks_active"):  "",
		all[1].series("llm_kv_blocks_active"):  "20",
		all[2].series("llm_kv_blocks_active"):  "30",
		`llm_load_avg{` + backend + `}`:        "25",
	})
	for i, w := range all {
		s.endLease(clientv3.LeaseID(w.id))
		m.waitFor(func(p samples) error { return p.matchNoneOf(w.id) })
		m.waitForSamples(samples{workersSeries("generate", "answering"): fmt.Sprint(2 - i), workersSeries("generate", "silent"): "0"})
	}
	m.waitForPublishers(0, 0)
}

// TestPublishingWorkerGoneIgnoresLateEvents sends events of all releases at the time when
// the worker's keys are deleted.
func TestPublishingWorkerGoneIgnoresLateEvents(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics()
	m.waitForNATSEvents()
	sequence := uint64(0)
	publishAll := func(blocks uint64) { // in no certain order, because there are several subjects
		s.publish("namespace.dynamo."+wire.TopicLoad, load06(7, blocks))
		s.publish("namespace.dynamo."+wire.TopicLoad, event{7, sequence, wire.TopicLoad, load09(7, blocks)}.envelope())
		s.publish(scope+"."+wire.TopicLoad, event{8, sequence, wire.TopicLoad, load16(7, blocks)}.envelope())
		s.publish(scope+"."+wire.TopicForwardPass, event{9, sequence, wire.TopicForwardPass, forwardPass("7", sequence+1)}.envelope())
		sequence++
		m.waitForSamples(samples{messages(stats.LoadEvent): fmt.Sprint(3 * sequence), messages(stats.ForwardPass): fmt.Sprint(sequence)})
	}
	s.put(registration(7)...)
	publishAll(10)
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "10", workersSeries("generate", "answering"): "1"})

	s.remove(registration(7)...)
	m.waitFor(func(p samples) error { return p.matchNoneOf(7) })
	publishAll(20)
	m.waitForSamples(samples{workersSeries("generate", "answering"): "0", workersSeries("generate", "unregistered"): "1"})
	m.waitFor(func(p samples) error { return p.matchNoneOf(7) })
	if p, err := m.scrape(); err != nil || len(p.filter("llm_load_avg")) > 0 {
		t.Errorf("an average without workers: %v, %v", p.filter("llm_load_avg"), err)
	}

	// The registry alone had lost the worker: what it published meanwhile counts.
	s.put(registration(7)...)
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "20", workersSeries("generate", "answering"): "1", workersSeries("generate", "unregistered"): "0"})
	publishAll(30)
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "30"})
}

// TestPublishingWorkerRestartedAtItsOldAddress starts the worker with a new id, while its
// old key stays for some time.
func TestPublishingWorkerRestartedAtItsOldAddress(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newPublisher(t, "PUB")
	first := append(registration(1), channel(wire.TopicLoad, 101, zmqTransport(p.address)))
	second := append(registration(2), channel(wire.TopicLoad, 102, zmqTransport(p.address)))
	m := s.metrics()
	s.put(first...)
	m.waitForPublishers(1, 0)
	p.send(event{101, 0, wire.TopicLoad, load16(1, 10)}.frames(wire.TopicLoad))
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 1): "10", workersSeries("generate", "answering"): "1"})

	p.close()
	m.waitForPublishers(0, 1)
	p.open()
	s.put(second...)
	m.waitForPublishers(2, 0) // both keys name its address
	p.send(event{102, 0, wire.TopicLoad, load16(2, 20)}.frames(wire.TopicLoad))
	m.waitForSamples(samples{
		workerSeries("llm_kv_blocks_active", "generate", 1): "10",
		workerSeries("llm_kv_blocks_active", "generate", 2): "20",
		messages(stats.LoadEvent):                           "3",
		rejected(stats.LoadEvent, stats.BadID):              "1", // under the old key
	})
	s.remove(first...)
	m.waitForPublishers(1, 0)
	m.waitFor(func(p samples) error { return p.matchNoneOf(1) })
	p.send(event{102, 1, wire.TopicLoad, load16(2, 21)}.frames(wire.TopicLoad))
	m.waitForSamples(samples{
		workerSeries("llm_kv_blocks_active", "generate", 2): "21",
		workersSeries("generate", "answering"):              "1",
		`dynamo_metrics_event_sequence_gaps_total`:          "0",
		rejected(stats.LoadEvent, stats.BadID):              "1",
	})
}
