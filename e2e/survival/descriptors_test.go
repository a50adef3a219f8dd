//go:build real

package survival

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestFileDescriptorsAreNotUsedUpByTheRegistry registers publishers that accept connections
// and send nothing. They use up their share of the file descriptors, while /metrics, polls
// and events over NATS continue.
func TestFileDescriptorsAreNotUsedUpByTheRegistry(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	silent, err := net.Listen("tcp4", "0.0.0.0:0") // on every address of the loopback network
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		var conns []net.Conn
		for {
			c, err := silent.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
		}
		for _, c := range conns {
			c.Close()
		}
	})
	t.Cleanup(func() { silent.Close(); accepting.Wait() })
	_, port, _ := net.SplitHostPort(silent.Addr().String())
	const limit, announced = 64, 300
	m := f.startMetricsWith([]string{process.Installed(t, "prlimit", "util-linux"), fmt.Sprintf("--nofile=%[1]d:%[1]d", limit)})
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	for i := range uint64(announced) {
		key := fmt.Sprintf("v1/event_channels/namespace/dynamo/component/backend/endpoint/generate/topic/kv_metrics/%x", 1000+i)
		value := fmt.Sprintf(`{"type":"EventChannel","topic":"kv_metrics","instance_id":%d,"scope":{"kind":"endpoint","endpoint":{"namespace":"dynamo","component":"backend","name":"generate"}},`+
			`"transport":{"kind":"Zmq","config":{"endpoint":"tcp://127.0.0.%d:%s"}}}`, 1000+i, 2+i%250, port)
		if _, err := f.ec.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	m.waitFor(func(p samples) error {
		return p.match(samples{`dynamo_metrics_zmq_publishers{state="waiting"}`: fmt.Sprint(announced - limit/2), `dynamo_metrics_zmq_publishers{state="disconnected"}`: fmt.Sprint(limit / 2)})
	})
	m.WaitForLine("There is no room for more ZMQ publishers")
	for _, w := range []*worker{a, b} {
		w.load.Add(1)
	}
	checkThroughout(t, shortOr(5*time.Second, 30*time.Second), func() error {
		if m.HasEnded() {
			return errEnded
		}
		p, err := m.scrape() // each scrape uses a new connection
		if err != nil {
			return err
		}
		if open := p.number("process_open_fds"); open > limit-8 {
			return fmt.Errorf("%v of %d file descriptors are in use", open, limit)
		}
		return nil
	})
	m.waitFor(func(p samples) error { return p.match(samplesOf(a, b)) })
	if _, err := f.ec.Delete(t.Context(), "v1/event_channels/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	f.startRouter(a, b).stopAndCheck(m)
	m.Terminate()
}
