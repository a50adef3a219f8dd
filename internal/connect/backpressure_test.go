package connect

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// TestBackpressureDialerSlowsServer blocks a handler while more messages are published than the
// client keeps. The others must wait in the server, and arrive later.
func TestBackpressureDialerSlowsServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ messages, size, least, most int }{
		"many":  {131_072, 50, 32_769, 49_152},
		"large": {1024, 64 << 10, 257, 384}, // of 16 MiB
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// On a slow machine the server must not take this client for a slow consumer.
			s := startNATS(t, func(o *server.Options) { o.WriteDeadline = testutil.WaitTimeout })
			log, _ := testutil.NewLog()
			nc, err := DialNATS(t.Context(), s.URL(), func(string) string { return "" }, log, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			var handled atomic.Int64
			unblock := make(chan struct{})
			sub, err := Subscribe(nc, "x", func(*nats.Msg) {
				<-unblock
				handled.Add(1)
			})
			if err != nil {
				t.Fatal(err)
			}
			if messages, bytes, err := sub.PendingLimits(); messages != 65_536 || bytes != 32<<20 || err != nil {
				t.Errorf("the limits are %d messages and %d bytes, %v; want twice those of the connection", messages, bytes, err)
			}
			if err := nc.FlushTimeout(5 * time.Second); err != nil {
				t.Fatal(err)
			}
			publisher, err := nats.Connect(s.URL(), nats.Timeout(testutil.WaitTimeout))
			if err != nil {
				t.Fatal(err)
			}
			defer publisher.Close()
			for range c.messages {
				if err := publisher.Publish("x", make([]byte, c.size)); err != nil {
					t.Fatal(err)
				}
			}
			waiting := func() int {
				n, _, err := sub.Pending()
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			testutil.Until(t, func() error {
				if n := waiting(); n < c.least {
					return fmt.Errorf("%d messages wait, want at least %d", n, c.least)
				}
				return nil
			})
			if n := waiting(); n > c.most {
				t.Errorf("%d messages wait in the client, want no more than %d", n, c.most)
			}
			close(unblock)
			testutil.Until(t, func() error {
				if n := handled.Load(); n != int64(c.messages) {
					return fmt.Errorf("%d messages handled, want %d", n, c.messages)
				}
				return nil
			})
			if n, err := sub.Dropped(); n != 0 || err != nil {
				t.Errorf("%d dropped, %v", n, err)
			}
		})
	}
}

// TestThrottledConnIsReadEverySecond keeps the connection overloaded. It must still be read, or
// the server would disconnect it as a slow consumer.
func TestThrottledConnIsReadEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go theirs.Write([]byte("abc"))
		var behind atomic.Bool
		behind.Store(true)
		c := &throttledConn{ours, behind.Load}
		read := func(want time.Duration) {
			t.Helper()
			began := time.Now()
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(began); got != want {
				t.Errorf("it was read after %s, want %s", got, want)
			}
		}
		read(time.Second)
		go func() {
			time.Sleep(20*time.Millisecond - time.Microsecond)
			behind.Store(false)
		}()
		read(20 * time.Millisecond)
		read(0)
	})
}

// TestBackpressureDialerForgetsEndedSubscriptions checks that messages that wait in a subscription
// that has ended do not count.
func TestBackpressureDialerForgetsEndedSubscriptions(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	log, _ := testutil.NewLog()
	nc, err := DialNATS(t.Context(), s.URL(), func(string) string { return "" }, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	d := nc.Opts.CustomDialer.(*backpressureDialer)
	for range 3 {
		sub, err := Subscribe(nc, "x", func(*nats.Msg) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
	if d.overloaded() || len(d.subscriptions) != 0 {
		t.Errorf("%d subscriptions count, want none", len(d.subscriptions))
	}
}
