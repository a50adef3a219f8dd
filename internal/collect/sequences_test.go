package collect

import (
	"testing"

	"dynamo-metrics/internal/fleet"
)

func TestGapsAreTheNumbersThatNeverCame(t *testing.T) {
	var s sequences
	for _, c := range []struct {
		publisher uint64
		kind      fleet.Kind
		number    uint64
		missing   uint64
		why       string
	}{
		{1, fleet.LoadEvent, 7, 0, "the first that is heard says nothing"},
		{1, fleet.LoadEvent, 8, 0, "the next"},
		{1, fleet.LoadEvent, 12, 3, "9, 10 and 11"},
		{1, fleet.ForwardPass, 0, 0, "each topic counts for itself"},
		{2, fleet.LoadEvent, 0, 0, "and each publisher"},
		{1, fleet.ForwardPass, 2, 1, "1"},
		{1, fleet.LoadEvent, 13, 0, "the next"},
		{1, fleet.LoadEvent, 1 << 60, 0, "not to be believed"},
		{1, fleet.LoadEvent, 1<<60 + 2, 1, "but a start"},
		{2, fleet.LoadEvent, 0, 0, "another publisher of the same id"},
		{2, fleet.LoadEvent, 50, 0, "so that gaps cannot be told any more"},
	} {
		if got := s.gap(c.publisher, c.kind, c.number); got != c.missing {
			t.Errorf("number %d of publisher %d, %s: %d missing, want %d: %s", c.number, c.publisher, c.kind, got, c.missing, c.why)
		}
	}
}

func TestPublishersThatAreRememberedAreBounded(t *testing.T) {
	var s sequences
	for publisher := range uint64(maxStreams + 10) {
		s.gap(publisher, fleet.LoadEvent, 0)
	}
	if n := len(s.next); n > maxStreams {
		t.Errorf("%d streams are remembered, more than %d", n, maxStreams)
	}
}
