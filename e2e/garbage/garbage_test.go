package garbage

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

func TestThereAreSeedsOfEveryKind(t *testing.T) {
	messages, entries := Messages(), Entries()
	for _, kind := range fleet.Kinds() {
		if n := len(messages[kind]) - len(small()); n < 3 && len(entries[kind]) < 3 {
			t.Errorf("%v: %d messages and %d entries, want some", kind, n, len(entries[kind]))
		}
	}
	for _, topic := range []string{wire.TopicLoad, wire.TopicForwardPass, wire.TopicKVEvents} {
		if len(Frames(topic)) == 0 {
			t.Errorf("no message over ZMQ of topic %s", topic)
		}
	}
}

func TestASeedGivesTheSameMessages(t *testing.T) {
	seeds := Messages()[fleet.StatsReply]
	a, b := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		if first, second := Mutated(a, seeds), Mutated(b, seeds); !bytes.Equal(first, second) {
			t.Fatalf("got %q and %q", first, second)
		}
	}
}
