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

func startZMQPublishers(t *testing.T) *zmqPublishers {
	t.Helper()
	s, err := newZMQPublishers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func TestRegistryFuzzerNamesOnlyItsOwnPublishers(t *testing.T) {
	s := startZMQPublishers(t)
	r, rng := newRegistryFuzzer(nil, s), rand.New(rand.NewPCG(1, 1))
	targets := make(map[string]int)
	for range 20_000 {
		e := r.randomEntry(rng, stats.ChannelKeys)
		c, err := wire.ParseChannel(garbage.Namespace, e.Key, []byte(e.Value))
		if err != nil {
			continue
		}
		for _, address := range strings.Split(c.Address, ";") {
			targets[address]++
		}
	}
	allowed := []string{"", closedAddress}
	for _, malformed := range s.malformed {
		allowed = append(allowed, malformed.address())
	}
	for address, n := range targets {
		if !slices.Contains(allowed, address) {
			t.Errorf("%d channels name %s", n, address)
		}
	}
	if len(targets) != len(allowed) {
		t.Errorf("got channels to %v, want some to each of %v", targets, allowed)
	}
}

func TestZMQPublishersRepeatMessagesOfASeed(t *testing.T) {
	var messages [2][][]byte
	for i := range messages {
		rng := rand.New(rand.NewPCG(1, 1))
		for _, h := range startZMQPublishers(t).valid {
			for range 1000 {
				frames := h.message(rng)
				if string(frames[0]) != h.subject {
					t.Fatalf("a message begins with %q, want %q, or it would not be counted", frames[0], h.subject)
				}
				messages[i] = append(messages[i], appendMessage(nil, frames))
			}
		}
	}
	if !slices.EqualFunc(messages[0], messages[1], slices.Equal) {
		t.Error("the same seed gave different messages")
	}
}

func TestProcessNoticesAPanic(t *testing.T) {
	p, err := start(t.Context(), nil, "/bin/sh", "-c", `printf 'a line\npan'; printf 'ic: boom\n\ngoroutine 1\n'; yes | head -c 20000`)
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if got, want := p.panicLine(), "panic: boom"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	quietProcess, err := start(t.Context(), nil, "/bin/sh", "-c", "echo all is well")
	if err != nil {
		t.Fatal(err)
	}
	<-quietProcess.ended
	if got := quietProcess.panicLine(); got != "" {
		t.Errorf("got %q from a process without a panic", got)
	}
}
