package garbage

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

func TestMessagesHaveSeedsOfEveryKind(t *testing.T) {
	messages, entries := Messages(), Entries()
	for _, kind := range stats.Kinds() {
		if kind == stats.OtherKeys {
			continue // it is the zero value for unknown kinds
		}
		if n := len(messages[kind]) - len(smallCorpus()); n < 3 && len(entries[kind]) < 3 {
			t.Errorf("%v: %d messages and %d entries, want some", kind, n, len(entries[kind]))
		}
	}
	for _, topic := range []string{wire.TopicLoad, wire.TopicForwardPass, wire.TopicKVEvents} {
		if len(Frames(topic)) == 0 {
			t.Errorf("no message over ZMQ of topic %s", topic)
		}
	}
}

func TestMutateRepeatsMessagesOfASeed(t *testing.T) {
	seeds := Messages()[stats.StatsReply]
	a, b := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		if first, second := Mutate(a, seeds), Mutate(b, seeds); !bytes.Equal(first, second) {
			t.Fatalf("got %q and %q", first, second)
		}
	}
}

// TestForgedMessagesCanBeParsed checks that the program takes forged messages for real
// ones.
func TestForgedMessagesCanBeParsed(t *testing.T) {
	in := fleet.Instance{Endpoint: fleet.Endpoint{Component: "made", Name: "up"}, ID: 0x1f}
	for topic, event := range map[string][]byte{wire.TopicLoad: LoadEvent(in.ID, 3, 7), wire.TopicForwardPass: ForwardPass(in.ID, 3, 1, 0.5)} {
		e, kind, ok := wire.ParseEventSubject("ns", Subject("ns", in.Endpoint, topic))
		if e != in.Endpoint || kind != topic || !ok {
			t.Errorf("the subject is of %v, %s, %v", e, kind, ok)
		}
		v, err := wire.ParseEnvelope(event)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := wire.ParseActiveLoad(v.Payload); topic == wire.TopicLoad && (err != nil || l.Worker != in.ID || l.Rank != 3 || l.KVActive().V != 7) {
			t.Errorf("the load is %+v, %v", l, err)
		}
		if p, err := wire.ParseForwardPass(v.Payload); topic == wire.TopicForwardPass && (err != nil || p.Worker != in.ID || p.Rank != 3 || p.WallTime != 0.5) {
			t.Errorf("the forward pass is %+v, %v", p, err)
		}
	}
	d := wire.StatsDecoder{}
	for _, worker := range []uint64{0, in.ID} {
		a, err := d.Decode(StatsReply("ns_made", "up", worker, "forged", 7))
		if err != nil || len(a.Endpoints) != 1 || a.Endpoints[0].Name != "up" || a.Endpoints[0].Lease != worker || a.Endpoints[0].Load.KVActive.V != 7 {
			t.Errorf("the poll reply is %+v, %v", a, err)
		}
	}
	r, c := Registration("ns", in), Card("ns", in)
	got, ok := wire.LayoutV1.ParseKey("ns", r.Key)
	if _, err := wire.LayoutV1.ParseValue("ns", in, []byte(r.Value)); got != in || !ok || err != nil {
		t.Errorf("the registration is of %v, %v, %v", got, ok, err)
	}
	got, ok = wire.ParseCardKey("ns", c.Key)
	if card, err := wire.ParseCard([]byte(c.Value)); got != in || !ok || err != nil || card.Model != "forged" {
		t.Errorf("the card is of %v, %v: %+v, %v", got, ok, card, err)
	}
}
