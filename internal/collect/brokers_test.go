package collect

import (
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

func TestBrokersAreReadAsDynamoWritesThem(t *testing.T) {
	for value, want := range map[string]string{
		"":                                "",
		"   ":                             "",
		"xsub=tcp://h:1 , xpub=tcp://h:2": "tcp://h:2",
		"xpub=tcp://h:2,xsub=tcp://h:1":   "tcp://h:2",
		"xsub=tcp://h:1;tcp://i:1 , xpub=tcp://i:2 ; tcp://h:2": "tcp://h:2 tcp://i:2",
		"xsub=tcp://h:1, xpub=tcp://h:2;tcp://h:2":              "tcp://h:2",
		"tcp://h:2":                  "error: no xpub: want xsub=tcp://host:port , xpub=tcp://host:port",
		"xsub=tcp://h:1":             "error: no xpub: want xsub=tcp://host:port , xpub=tcp://host:port",
		"xpub=h:2":                   `error: address "h:2": want tcp://host:port`,
		"xpub=":                      `error: address "": want tcp://host:port`,
		"xpub=tcp://h:2;nonsense":    `error: address "nonsense": want tcp://host:port`,
		"xpub=ipc:///tmp/x":          `error: address "ipc:///tmp/x": want tcp://host:port`,
		"xpub=tcp://[2001:db8::1]:5": "tcp://[2001:db8::1]:5",
	} {
		xpub, err := ParseBrokers(value)
		got := strings.Join(xpub, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

func TestAnEventThatCameByAnotherBrokerIsTold(t *testing.T) {
	var r repeats
	event := func(publisher, sequence uint64, payload string) wire.Envelope {
		return wire.Envelope{Publisher: publisher, Sequence: sequence, PublishedAt: 1, Payload: []byte(payload)}
	}
	for i, c := range []struct {
		event wire.Envelope
		kind  fleet.Kind
		want  bool
	}{
		{event(1, 0, "a"), fleet.LoadEvent, false},
		{event(1, 0, "a"), fleet.LoadEvent, true},
		{event(1, 0, "a"), fleet.ForwardPass, false}, // another topic
		{event(2, 0, "a"), fleet.LoadEvent, false},   // another publisher
		{event(1, 1, "a"), fleet.LoadEvent, false},   // another number
		{event(1, 1, "b"), fleet.LoadEvent, false},   // another publisher of the same id
		{event(1, 2, "a"), fleet.LoadEvent, false},
		{event(1, 2, "a"), fleet.LoadEvent, true},
		{event(1, memory, "a"), fleet.LoadEvent, false}, // number 0 is forgotten
		{event(1, 0, "a"), fleet.LoadEvent, false},
	} {
		if got := r.seen(c.event, c.kind); got != c.want {
			t.Errorf("event %d: seen = %v, want %v", i, got, c.want)
		}
	}
}

func TestBrokersAreAskedForNoMoreThanTheNamespace(t *testing.T) {
	want := []string{
		"namespace.a%2Eb.component.",
		"namespace.a.b.component.",
		"namespace.a.b.forward-pass-metrics",
		"namespace.a.b.kv-hit-rate",
		"namespace.a.b.kv_metrics",
	}
	if got := brokerTopics("a.b"); !slices.Equal(got, want) {
		t.Errorf("topics %q, want %q", got, want)
	}
}
