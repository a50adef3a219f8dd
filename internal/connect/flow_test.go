package connect

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"

	"github.com/nats-io/nats.go"
)

// TestAHandlerThatIsBehindHoldsTheServerBack has more messages published while the
// handler stands still than the client would keep: they must wait elsewhere, and come.
func TestAHandlerThatIsBehindHoldsTheServerBack(t *testing.T) {
	t.Parallel()
	const messages = 4 * mostWaiting
	s := startNATS(t, nil)
	log, _ := devstacktest.NewLog()
	nc, err := NATS(t.Context(), s.URL(), func(string) string { return "" }, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var handled atomic.Int64
	goOn := make(chan struct{})
	sub, err := Subscribe(nc, "x", func(*nats.Msg) {
		<-goOn
		handled.Add(1)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	publisher, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	for range messages {
		if err := publisher.Publish("x", make([]byte, 50)); err != nil {
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
	devstacktest.Until(t, func() error {
		if n := waiting(); n <= mostWaiting {
			return fmt.Errorf("%d messages wait, want more than %d", n, mostWaiting)
		}
		return nil
	})
	if n := waiting(); n > mostWaiting*3/2 {
		t.Errorf("%d messages wait in the client, want little more than %d", n, mostWaiting)
	}
	close(goOn)
	devstacktest.Until(t, func() error {
		if n := handled.Load(); n != messages {
			return fmt.Errorf("%d messages handled, want %d", n, messages)
		}
		return nil
	})
	if n, err := sub.Dropped(); n != 0 || err != nil {
		t.Errorf("%d dropped, %v", n, err)
	}
}

// TestOnlySubscriptionsThatLastAreWaitedFor, and not those that have ended with
// something left.
func TestOnlySubscriptionsThatLastAreWaitedFor(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	log, _ := devstacktest.NewLog()
	nc, err := NATS(t.Context(), s.URL(), func(string) string { return "" }, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	f := nc.Opts.CustomDialer.(*flow)
	for range 3 {
		sub, err := Subscribe(nc, "x", func(*nats.Msg) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
	if f.behind() || len(f.subscriptions) != 0 {
		t.Errorf("%d subscriptions are looked at, want none", len(f.subscriptions))
	}
}
