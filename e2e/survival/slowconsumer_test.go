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

// numberedLoad returns a published load (0.9): the nth event of the worker.
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

// slowConsumer is a program that misses events of one publisher while it is stopped.
type slowConsumer struct {
	*program
	env  *environment
	sent atomic.Uint64 // events
}

func (c *slowConsumer) publish() {
	if err := c.env.nc.Publish("namespace.dynamo."+wire.TopicLoad, numberedLoad(77, c.sent.Load())); err != nil {
		c.T.Error(err)
		return
	}
	c.sent.Add(1)
}

// publishUntilStopped publishes as fast as possible until stop.
func (c *slowConsumer) publishUntilStopped() (stop func()) {
	done := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				c.publish()
			}
		}
	})
	return func() {
		close(done)
		publishing.Wait()
		c.env.flush()
	}
}

// waitForAll waits until each event that was sent is counted as received or missing, at
// least this many of them as missing.
func (c *slowConsumer) waitForAll(missing uint64) {
	c.T.Helper()
	c.waitFor(func(p samples) error {
		got, lost := uint64(p.number(`dynamo_metrics_messages_total{kind="load"}`)), uint64(p.number(`dynamo_metrics_event_sequence_gaps_total`))
		if got+lost > c.sent.Load() {
			c.T.Fatalf("%d received and %d missing of %d", got, lost, c.sent.Load())
		}
		if got+lost < c.sent.Load() || lost < missing {
			return fmt.Errorf("%d received and %d missing of %d, want all, and at least %d missing", got, lost, c.sent.Load(), missing)
		}
		return nil
	})
}

// waitForSlowConsumer waits until a NATS server has disconnected a client that is too slow,
// and 20 s have passed.
func waitForSlowConsumer(t *testing.T, monitor string, began time.Time) {
	t.Helper()
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
		if paused := time.Since(began); v.Slow == 0 || paused < 20*time.Second {
			return fmt.Errorf("after %s the server has disconnected %d clients", paused, v.Slow)
		}
		return nil
	})
}

// waitForOutage waits until the snapshot has a problem about an outage.
func (c *slowConsumer) waitForOutage() {
	c.T.Helper()
	testutil.Until(c.T, func() error {
		text, err := body(c.url + "/api/v1/fleet")
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
				c.T.Log(p.Title)
				return nil
			}
		}
		return fmt.Errorf("the snapshot has no outage: %v", v.Problems)
	})
}

// TestSlowConsumerIsReconnectedAndReported stops the program for a while: the server
// disconnects a client that does not read, and drops what is published meanwhile. Each
// event is then counted as received or missing, and so is the time in which none could
// arrive.
func TestSlowConsumerIsReconnectedAndReported(t *testing.T) {
	t.Parallel()
	monitor := process.FreeAddress(t)
	_, port, _ := net.SplitHostPort(monitor)
	f := newEnvironment(t, "-m", port)
	a := f.startWorker(1, 10)
	m := &slowConsumer{program: f.startMetrics(), env: f}
	m.waitForSamples(merged(ready, samplesOf(a)))
	for range 100 {
		m.publish()
	}
	m.waitForAll(0)
	before, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	m.Signal(syscall.SIGSTOP)
	stop := m.publishUntilStopped()
	waitForSlowConsumer(t, monitor, began)
	stop()
	paused := time.Since(began)
	m.Signal(syscall.SIGCONT)

	m.WaitForLine("Lost the connection to NATS")
	m.waitForSamples(merged(ready, samplesOf(a)))
	m.waitFor(func(p samples) error {
		const seconds, disconnects = `dynamo_metrics_disconnected_seconds_total{system="nats"}`, `dynamo_metrics_disconnects_total{system="nats"}`
		if n := p.number(disconnects); n < before.number(disconnects)+1 {
			return fmt.Errorf("%v connections were lost", n)
		}
		if lost := p.number(seconds) - before.number(seconds); lost < paused.Seconds()-2 {
			return fmt.Errorf("no event could arrive for %v s, and the program was stopped for %s", lost, paused)
		}
		return nil
	})
	m.waitForOutage()
	for range 100 {
		m.publish()
	}
	m.waitForAll(1000)
	t.Logf("%d were published in %s", m.sent.Load(), paused)
	m.Terminate()
}
