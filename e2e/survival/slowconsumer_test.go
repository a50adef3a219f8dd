//go:build real

package survival

import (
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/tinylib/msgp/msgp"
)

// numbered is a published load (0.9): the nth event of its publisher, the worker.
func numberedLoad(worker, n uint64) []byte {
	e := msgp.AppendMapHeader(nil, 5)
	for i, key := range []string{"publisher_id", "sequence", "published_at"} {
		e = msgp.AppendUint64(msgp.AppendString(e, key), []uint64{worker, n, uint64(time.Now().UnixMilli())}[i])
	}
	e = msgp.AppendString(msgp.AppendString(e, "topic"), wire.TopicLoad)
	load := msgp.AppendMapHeader(nil, 3)
	for i, key := range []string{"worker_id", "dp_rank", "active_decode_blocks"} {
		load = msgp.AppendUint64(msgp.AppendString(load, key), []uint64{worker, 0, n % 1000}[i])
	}
	return msgp.AppendBytes(msgp.AppendString(e, "payload"), load)
}

// TestSlowConsumerIsReconnectedAndReported: a server drops a client that does not read,
// and all that was published meanwhile. What can be counted is: each event is received
// or missing, and for how long none could arrive.
func TestSlowConsumerIsReconnectedAndReported(t *testing.T) {
	t.Parallel()
	monitor := process.FreeAddress(t)
	_, port, _ := net.SplitHostPort(monitor)
	f := newEnvironment(t, "-m", port)
	a := f.startWorker(1, 10)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a)))
	const publisher = 77
	var sent atomic.Uint64
	publish := func() {
		if err := f.nc.Publish("namespace.dynamo."+wire.TopicLoad, numberedLoad(publisher, sent.Load())); err != nil {
			t.Error(err)
			return
		}
		sent.Add(1)
	}
	for range 100 {
		publish()
	}
	// All that were sent are received, or missing.
	const received, missing = `dynamo_metrics_messages_total{kind="load"}`, `dynamo_metrics_event_sequence_gaps_total`
	settled := func(least uint64) {
		t.Helper()
		m.waitFor(func(p samples) error {
			got, lost := uint64(p.number(received)), uint64(p.number(missing))
			if got+lost > sent.Load() {
				t.Fatalf("%d received and %d missing of %d", got, lost, sent.Load())
			}
			if got+lost < sent.Load() || lost < least {
				return fmt.Errorf("%d received and %d missing of %d, want all, and at least %d missing", got, lost, sent.Load(), least)
			}
			return nil
		})
	}
	settled(0)
	const down, falls = `dynamo_metrics_disconnected_seconds_total{system="nats"}`, `dynamo_metrics_disconnects_total{system="nats"}`
	before, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	m.Signal(syscall.SIGSTOP)
	done := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				publish()
			}
		}
	})
	testutil.Until(t, func() error {
		text, err := body("http://" + monitor + "/varz")
		if err != nil {
			return err
		}
		var v struct {
			Slow int `json:"slow_consumers"`
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		if stood := time.Since(began); v.Slow == 0 || stood < 20*time.Second {
			return fmt.Errorf("after %s the server has cut off %d clients", stood, v.Slow)
		}
		return nil
	})
	close(done)
	publishing.Wait()
	f.flush()
	stood := time.Since(began)
	m.Signal(syscall.SIGCONT)

	m.WaitForLine("Lost the connection to NATS")
	m.waitForSamples(merged(ready, samplesOf(a)))
	m.waitFor(func(p samples) error {
		if n := p.number(falls); n < before.number(falls)+1 {
			return fmt.Errorf("%v connections were lost", n)
		}
		grew := p.number(down) - before.number(down)
		if grew < stood.Seconds()-2 {
			return fmt.Errorf("no event could arrive for %v s, and it stood still for %s", grew, stood)
		}
		return nil
	})
	testutil.Until(t, func() error {
		text, err := body(m.url + "/api/v1/fleet")
		if err != nil {
			return err
		}
		var v struct {
			Problems []struct{ Kind, Title string }
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		for _, p := range v.Problems {
			if p.Kind == "outage" {
				t.Log(p.Title)
				return nil
			}
		}
		return fmt.Errorf("the page tells of no outage: %v", v.Problems)
	})
	for range 100 {
		publish()
	}
	settled(1000)
	t.Logf("%d were published in %s", sent.Load(), stood)
	m.Terminate()
}
