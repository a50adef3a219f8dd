package main

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

func speakersOfATest(t *testing.T) *speakers {
	t.Helper()
	s, err := newSpeakers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func TestAFuzzersChannelsLeadToItsOwnPublishersOnly(t *testing.T) {
	s := speakersOfATest(t)
	r, rng := newScribbler(nil, s), rand.New(rand.NewPCG(1, 1))
	led := make(map[string]int)
	for range 20_000 {
		e := r.entry(rng, stats.ChannelKeys)
		c, err := wire.ParseChannel(garbage.Namespace, e.Key, []byte(e.Value))
		if err != nil {
			continue
		}
		for _, address := range strings.Split(c.Address, ";") {
			led[address]++
		}
	}
	allowed := []string{"", closed}
	for _, rude := range s.rude {
		allowed = append(allowed, rude.address())
	}
	for address, n := range led {
		if !slices.Contains(allowed, address) {
			t.Errorf("%d lead to %s", n, address)
		}
	}
	if len(led) != len(allowed) {
		t.Errorf("got channels to %v, want some to each of %v", led, allowed)
	}
}

func TestAFuzzersFramesFollowFromItsSeed(t *testing.T) {
	var said [2][][]byte
	for i := range said {
		rng := rand.New(rand.NewPCG(1, 1))
		for _, h := range speakersOfATest(t).honest {
			for range 1000 {
				frames := h.message(rng)
				if string(frames[0]) != h.subject {
					t.Fatalf("a message begins with %q, want %q, or it would not be counted", frames[0], h.subject)
				}
				said[i] = append(said[i], appendMessage(nil, frames))
			}
		}
	}
	if !slices.EqualFunc(said[0], said[1], slices.Equal) {
		t.Error("one seed gave different messages")
	}
}

func TestAPanicIsNotMissed(t *testing.T) {
	p, err := start(t.Context(), nil, "/bin/sh", "-c", `printf 'a line\npan'; printf 'ic: boom\n\ngoroutine 1\n'; yes | head -c 20000`)
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if got, want := p.panicked(), "panic: boom"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	quietly, err := start(t.Context(), nil, "/bin/sh", "-c", "echo all is well")
	if err != nil {
		t.Fatal(err)
	}
	<-quietly.ended
	if got := quietly.panicked(); got != "" {
		t.Errorf("got %q from a process without a panic", got)
	}
}
