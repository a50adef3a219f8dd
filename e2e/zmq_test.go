package e2e

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

func TestZMQPublisherThatReturns(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newPublisher(t, "PUB")
	s.put(append(registration(7), channel(wire.TopicLoad, 70, zmqTransport(p.address)))...)
	m := s.metrics("--nats-server", "none")
	m.waitForPublishers(1, 0)
	p.send(event{70, 0, wire.TopicLoad, load16(7, 10)}.frames(wire.TopicLoad))
	shown := samples{workerSeries("llm_kv_blocks_active", "generate", 7): "10", workersSeries("generate", "answering"): "1"}
	m.waitForSamples(shown)

	p.close()
	m.waitForPublishers(0, 1)
	m.waitUntilNotReady("no ZMQ publisher is connected")
	m.waitForSamples(samples{`dynamo_metrics_connected{system="zmq"}`: "0"})
	m.waitForSamples(shown)

	p.open()
	m.waitForPublishers(1, 0)
	m.waitUntilReady()
	p.send(event{70, 3, wire.TopicLoad, load16(7, 20)}.frames(wire.TopicLoad)) // 1 and 2 were sent before the subscription
	m.waitForSamples(samples{
		workerSeries("llm_kv_blocks_active", "generate", 7): "20",
		`dynamo_metrics_connected{system="zmq"}`:            "1",
		`dynamo_metrics_event_sequence_gaps_total`:          "2",
	})
}

// brokerFlag returns the value of --zmq-broker for these brokers.
func brokerFlag(brokers ...*publisher) string {
	s := "xsub=tcp://127.0.0.1:1 , xpub=" + brokers[0].address
	for _, p := range brokers[1:] {
		s += ";" + p.address
	}
	return s
}

func TestZMQBrokerForwardsEvents(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	b := newPublisher(t, "XPUB")
	m := s.metrics("--nats-server", "none", "--zmq-broker", brokerFlag(b))
	m.waitForPublishers(1, 0)
	for _, e := range []struct {
		subject string
		event
	}{
		{"namespace.dynamo." + wire.TopicLoad, event{7, 0, wire.TopicLoad, load09(7, 10)}},
		{"namespace.dynamo." + wire.TopicLoad, event{7, 1, wire.TopicLoad, load09(7, 20)}},
		{scope + "." + wire.TopicForwardPass, event{71, 0, wire.TopicForwardPass, forwardPass("7", 1)}},
		{scope + "." + wire.TopicForwardPass, event{71, 1, wire.TopicForwardPass, forwardPass("7", 2)}},
		{scope + "." + wire.TopicKVEvents, event{72, 0, wire.TopicKVEvents, []byte("for routers")}},
		{"namespace.other." + wire.TopicLoad, event{73, 0, wire.TopicLoad, load16(7, 999)}},
		{scope + "." + wire.TopicLoad, event{70, 0, wire.TopicLoad, load16(7, 30)}},
	} {
		b.send(e.frames(e.subject))
	}
	m.waitForSamples(samples{
		workerSeries("llm_kv_blocks_active", "generate", 7):     "30",
		workerSeries("llm_kv_blocks_total", "generate", 7):      "1000",
		workerSeries("llm_forward_passes_total", "generate", 7): "2",
		messages(stats.LoadEvent):                               "3",
		messages(stats.ForwardPass):                             "2",
		`dynamo_metrics_connected{system="nats"}`:               "0",
		`dynamo_metrics_connected{system="zmq"}`:                "1",
		`dynamo_metrics_event_sequence_gaps_total`:              "0",
	})
	m.waitUntilReady()
	if p, err := m.scrape(); err != nil || len(p.filter("rejected_messages")) > 0 {
		t.Errorf("rejected: %v, %v", p.filter("rejected_messages"), err)
	}
}

func TestZMQBrokersSendingTheSameCountOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	one, other := newPublisher(t, "XPUB"), newPublisher(t, "XPUB")
	m := s.metrics("--nats-server", "none", "--zmq-broker", brokerFlag(one, other))
	m.waitForPublishers(2, 0)
	const events = 200 // fewer than the program remembers, however far one broker is ahead
	logged := make([][2][]byte, events)
	for i := range logged {
		n := uint64(i)
		load := event{70, n, wire.TopicLoad, load16(7, 100+n)}.frames(scope + "." + wire.TopicLoad)
		passed := event{71, n, wire.TopicForwardPass, forwardPass("7", n+1)}.frames(scope + "." + wire.TopicForwardPass)
		logged[i] = [2][]byte{appendMessage(nil, load), appendMessage(nil, passed)}
	}
	var both sync.WaitGroup
	for _, b := range []*publisher{one, other} {
		both.Go(func() {
			for _, messages := range logged {
				b.sendBytes(bytes.Join(messages[:], nil))
			}
		})
	}
	both.Wait()
	m.waitForSamples(samples{
		messages(stats.LoadEvent):                                      fmt.Sprint(2 * events),
		messages(stats.ForwardPass):                                    fmt.Sprint(2 * events),
		rejected(stats.LoadEvent, stats.Repeated):                      fmt.Sprint(events),
		rejected(stats.ForwardPass, stats.Repeated):                    fmt.Sprint(events),
		workerSeries("llm_forward_passes_total", "generate", 7):        fmt.Sprint(events),
		workerSeries("llm_forward_passes_missed_total", "generate", 7): "0",
		workerSeries("llm_kv_blocks_active", "generate", 7):            fmt.Sprint(99 + events),
	})

	one.close() // the other broker suffices
	m.waitForPublishers(1, 1)
	m.waitUntilReady()
	other.send(event{70, events, wire.TopicLoad, load16(7, 500)}.frames(scope + "." + wire.TopicLoad))
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "500", `dynamo_metrics_event_sequence_gaps_total`: "0"})
}

// TestZMQBrokerAnnouncedLater adds a broker to one that the flag names.
func TestZMQBrokerAnnouncedLater(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	one, other := newPublisher(t, "XPUB"), newPublisher(t, "XPUB")
	m := s.metrics("--nats-server", "none", "--zmq-broker", brokerFlag(one))
	m.waitForPublishers(1, 0)
	s.put(channel(wire.TopicLoad, 70, fmt.Sprintf(`{"kind":"ZmqBroker","config":{"xsub_endpoints":["tcp://127.0.0.1:1"],"xpub_endpoints":[%q,%q]}}`, one.address, other.address)))
	m.waitForPublishers(2, 0)
	m.waitUntilReady()
	for n := range uint64(3) {
		frames := event{70, n, wire.TopicForwardPass, forwardPass("7", n+1)}.frames(scope + "." + wire.TopicForwardPass)
		one.send(frames)
		other.send(frames)
	}
	m.waitForSamples(samples{
		messages(stats.ForwardPass):                             "6",
		rejected(stats.ForwardPass, stats.Repeated):             "3",
		workerSeries("llm_forward_passes_total", "generate", 7): "3",
	})
}

func TestZMQBrokerLossIsCoveredByTheOther(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	one, other := newPublisher(t, "XPUB"), newPublisher(t, "XPUB")
	m := s.metrics("--nats-server", "none", "--zmq-broker", brokerFlag(one, other))
	m.waitForPublishers(2, 0)
	publish := func(b *publisher, e event) { b.send(e.frames(scope + "." + wire.TopicLoad)) }
	first, second, third := event{70, 0, wire.TopicLoad, load16(7, 10)}, event{70, 1, wire.TopicLoad, load16(7, 20)}, event{70, 2, wire.TopicLoad, load16(7, 30)}
	publish(one, first)
	publish(one, third)
	m.waitForSamples(samples{messages(stats.LoadEvent): "2"})
	publish(other, first)
	publish(other, second)
	publish(other, third)
	m.waitForSamples(samples{
		messages(stats.LoadEvent):                           "5",
		workerSeries("llm_kv_blocks_active", "generate", 7): "30",
		`dynamo_metrics_event_sequence_gaps_total`:          "0",
	})
}

// TestZMQPublishersThatFailAffectNoOther has a publisher that floods, one that sends
// malformed events, one that violates the protocol, one that announces a frame of 4 GiB,
// one that accepts and sends nothing, and one that does not exist.
func TestZMQPublishersThatFailAffectNoOther(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var flooding sync.WaitGroup
	t.Cleanup(flooding.Wait)
	m := s.metrics("--nats-server", "none")
	id := uint64(0)
	join := func(kind string) *publisher {
		id++
		p := newPublisher(t, kind)
		s.put(append(registration(id), channel(wire.TopicLoad, 10*id, zmqTransport(p.address)))...)
		return p
	}
	control, flood, garbage, breaker, hugeBody := join("PUB"), join("PUB"), join("PUB"), join("PUB"), join("PUB")
	join(silentKind)
	join("PUB").close()
	for _, p := range []*publisher{control, flood, garbage, breaker, hugeBody} {
		p.waitForSubscription(1)
	}

	flooding.Go(func() {
		for n := uint64(0); t.Context().Err() == nil; {
			var b []byte
			for range 1000 {
				b = appendMessage(b, event{20, n, wire.TopicLoad, load16(2, n%1000)}.frames(wire.TopicLoad))
				n++
			}
			flood.sendBytes(b)
		}
	})
	const rounds = 30
	var slowest time.Duration
	for i := range uint64(rounds) {
		garbage.send([][]byte{[]byte(wire.TopicLoad)})
		garbage.send(event{31, i, wire.TopicLoad, load16(3, i)}.frames(wire.TopicLoad)) // the id of another publisher
		garbage.send(event{30, i, wire.TopicLoad, []byte("\xc1")}.frames(wire.TopicLoad))
		breaker.sendBytes(bytes.Repeat([]byte("\xff"), 1000))
		hugeBody.sendBytes(append([]byte{longFlag, 0, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 1<<20)...))
		logged := time.Now()
		control.send(event{10, i, wire.TopicLoad, load16(1, i)}.frames(wire.TopicLoad))
		m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 1): fmt.Sprint(i)})
		slowest = max(slowest, time.Since(logged))
	}
	breaker.waitForSubscription(2) // the connection was given up, and opened again
	hugeBody.waitForSubscription(2)
	if slowest > 5*time.Second {
		t.Errorf("a load was shown after %v", slowest)
	}
	m.waitForSamples(samples{
		rejected(stats.LoadEvent, stats.BadFrames):  fmt.Sprint(rounds),
		rejected(stats.LoadEvent, stats.BadID):      fmt.Sprint(rounds),
		rejected(stats.LoadEvent, stats.BadMsgpack): fmt.Sprint(rounds),
		workersSeries("generate", "answering"):      "2",
		workersSeries("generate", "silent"):         "5",
		`dynamo_metrics_event_sequence_gaps_total`:  "0",
	})
	m.waitFor(func(p samples) error {
		loads, _ := strconv.ParseFloat(p[messages(stats.LoadEvent)], 64)
		if loads < 5000 {
			return fmt.Errorf("%v loads, want a flood", loads)
		}
		memory, _ := strconv.ParseFloat(p["process_resident_memory_bytes"], 64)
		if memory == 0 || memory > 512<<20 {
			t.Errorf("%v bytes of memory", memory)
		}
		return nil
	})
	m.waitUntilReady()
}
