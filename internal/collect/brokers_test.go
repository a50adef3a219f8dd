package collect

import (
	"math/rand/v2"
	"strings"
	"testing"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

func TestParseBrokersReadsDynamoFormat(t *testing.T) {
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

func TestDeduperFindsCopies(t *testing.T) {
	var d deduper
	for i, s := range []struct {
		publisher, sequence, worker uint64
		kind                        stats.Kind
		want                        order
	}{
		{1, 0, 7, stats.LoadEvent, inOrder},
		{1, 0, 7, stats.LoadEvent, duplicate},
		{1, 0, 7, stats.ForwardPass, inOrder}, // another topic
		{2, 0, 7, stats.LoadEvent, inOrder},   // another publisher
		{1, 0, 8, stats.LoadEvent, inOrder},   // another publisher with the same id
		{1, 3, 7, stats.LoadEvent, inOrder},   // 1 and 2 were lost here
		{1, 2, 7, stats.LoadEvent, late},
		{1, 2, 7, stats.LoadEvent, duplicate},
		{1, 3, 7, stats.LoadEvent, duplicate},
		{1, 1024, 7, stats.LoadEvent, inOrder},
		{1, 1, 7, stats.LoadEvent, late}, // the oldest that is remembered
		{1, 0, 7, stats.LoadEvent, duplicate},
		{1, 1 << 40, 7, stats.LoadEvent, inOrder},
		{1, 1<<40 - 1, 7, stats.LoadEvent, late},
		{1, 1 << 40, 7, stats.LoadEvent, duplicate},
		{1, 1024, 7, stats.LoadEvent, duplicate},
	} {
		got := d.classify(wire.Envelope{Publisher: s.publisher, Sequence: s.sequence}, s.kind, s.worker, 0)
		if got != s.want {
			t.Errorf("event %d: %d, want %d", i, got, s.want)
		}
	}
	if got := d.classify(wire.Envelope{Publisher: 1, Sequence: 0, PublishedAt: 1}, stats.LoadEvent, 7, 0); got != inOrder {
		t.Errorf("of a restarted publisher: %d, want %d", got, inOrder)
	}
}

// TestDeduperSeparatesSharedID classifies events of two publishers with the same id, of which one
// has lower numbers.
func TestDeduperSeparatesSharedID(t *testing.T) {
	var d deduper
	for i, s := range []struct {
		number, at uint64
		want       order
	}{{0, 10, inOrder}, {1, 20, inOrder}, {2, 30, inOrder}, {1, 20, duplicate}, {2, 30, duplicate}, {0, 40, inOrder}, {0, 40, duplicate}, {1, 41, inOrder}} {
		if got := d.classify(wire.Envelope{Publisher: 1, Sequence: s.number, PublishedAt: s.at}, stats.LoadEvent, 7, 0); got != s.want {
			t.Errorf("event %d of two publishers: %d, want %d", i, got, s.want)
		}
	}
}

func TestDeduperNilFindsNoCopies(t *testing.T) {
	var none *deduper
	if got := none.classify(wire.Envelope{}, stats.LoadEvent, 1, 0); got != inOrder {
		t.Errorf("without a broker: %d, want %d", got, inOrder)
	}
}

func TestDeduperFindsCopiesInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var d deduper
	seen, newest := make(map[uint64]bool), uint64(0)
	for i := range 20_000 {
		number := newest - min(newest, r.Uint64N(2048)) + r.Uint64N(3)*r.Uint64N(40)
		want := inOrder
		switch {
		case seen[number] || newest >= number+1024:
			want = duplicate
		case number < newest:
			want = late
		}
		if got := d.classify(wire.Envelope{Sequence: number}, stats.LoadEvent, 1, 0); got != want && i > 0 {
			t.Fatalf("number %d, newest %d: %d, want %d", number, newest, got, want)
		}
		seen[number], newest = true, max(newest, number)
	}
}

func TestDeduperBoundsStreams(t *testing.T) {
	const most = 131_072 // in each of two generations
	var d deduper
	arrives := func(publisher, number uint64) order {
		return d.classify(wire.Envelope{Publisher: publisher, Sequence: number}, stats.LoadEvent, 7, 0)
	}
	for publisher := range uint64(4 * most) { // forged
		arrives(publisher, 0)
		if n := len(d.streams.young) + len(d.streams.old); n > 2*most {
			t.Fatalf("%d streams are remembered, want at most %d", n, 2*most)
		}
		if publisher%(most/2) == 0 {
			arrives(1<<40, publisher)
			if got := arrives(1<<40, publisher); got != duplicate {
				t.Fatalf("after %d forged publishers a copy is not found", publisher)
			}
		}
	}
	if n := len(d.streams.young) + len(d.streams.old); n < most {
		t.Errorf("%d streams are remembered, want at least %d", n, most)
	}
}
