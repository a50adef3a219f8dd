package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// registryFuzzer puts registry entries that are almost valid into etcd, and deletes them
// again.
type registryFuzzer struct {
	client  *clientv3.Client
	zmq     *zmqPublishers
	entries map[stats.Kind][]garbage.Entry
	values  map[stats.Kind][][]byte
	present map[string]stats.Kind // kind by key
}

func newRegistryFuzzer(client *clientv3.Client, zmq *zmqPublishers) *registryFuzzer {
	s := &registryFuzzer{
		client: client, zmq: zmq, entries: garbage.Entries(), values: make(map[stats.Kind][][]byte), present: make(map[string]stats.Kind),
	}
	for kind, entries := range s.entries {
		for _, e := range entries {
			s.values[kind] = append(s.values[kind], []byte(e.Value))
		}
		s.values[kind] = append(s.values[kind], garbage.Messages()[kind]...)
	}
	return s
}

// forgetPresent forgets the present entries, so that changeEntries does not delete them.
func (s *registryFuzzer) forgetPresent() { clear(s.present) }

// changeEntries deletes half of the present entries and puts new ones.
func (s *registryFuzzer) changeEntries(ctx context.Context, rng *rand.Rand, sent map[stats.Kind]int) error {
	for _, key := range slices.Sorted(maps.Keys(s.present)) {
		if rng.IntN(2) == 0 {
			continue
		}
		if err := s.remove(ctx, key, sent); err != nil {
			return err
		}
	}
	kinds := slices.Sorted(maps.Keys(s.entries))
	for range fuzzKeys {
		kind := kinds[rng.IntN(len(kinds))]
		if err := s.put(ctx, s.randomEntry(rng, kind), sent); err != nil {
			return err
		}
	}
	for _, e := range s.zmq.malformedChannels(rng) {
		if err := s.put(ctx, e, sent); err != nil {
			return err
		}
	}
	return nil
}

// addressPattern matches the addresses in event channels. Real ones name machines that the
// fuzzer must not connect to.
var addressPattern = regexp.MustCompile(`tcp://[^"]*`)

// randomEntry returns an entry of a kind with its key changed, its value, both, or neither.
func (s *registryFuzzer) randomEntry(rng *rand.Rand, kind stats.Kind) garbage.Entry {
	for {
		e := s.entries[kind][rng.IntN(len(s.entries[kind]))]
		if kind == stats.ChannelKeys {
			address := s.zmq.randomAddress(rng)
			e.Value = addressPattern.ReplaceAllLiteralString(e.Value, address)
			if rng.IntN(4) == 0 {
				e.Value = strings.Replace(e.Value, `"kind":"Zmq","config":{"endpoint":"`+address+`"}`, `"kind":"ZmqBroker","config":{"xpub_endpoints":["`+address+`"]}`, 1)
			}
		}
		change := rng.IntN(8)
		if change < 2 {
			prefix := prefixOf(kind, e.Key)
			e.Key = prefix + string(garbage.Mutate(rng, [][]byte{[]byte(e.Key[len(prefix):])}))
		}
		switch {
		case change > 0 && change < 6:
			e.Value = string(garbage.Mutate(rng, [][]byte{[]byte(e.Value)}))
		case change == 6:
			e.Value = string(garbage.Mutate(rng, s.values[kind]))
		}
		if e.Key != wire.LeaderKey(garbage.Namespace) && s.isConfined(kind, e) {
			return e
		}
	}
}

// isConfined reports whether an entry leads the program only to our own publishers, and to
// ports on which nothing listens. It parses the entry as the program does.
func (s *registryFuzzer) isConfined(kind stats.Kind, e garbage.Entry) bool {
	if kind != stats.ChannelKeys {
		return true
	}
	c, err := wire.ParseChannel(garbage.Namespace, e.Key, []byte(e.Value))
	if err != nil || c.Address == "" {
		return true
	}
	return !slices.ContainsFunc(strings.Split(c.Address, ";"), func(a string) bool { return !s.zmq.isAllowed(a) })
}

// prefixOf returns the watched prefix that a key has.
func prefixOf(kind stats.Kind, key string) string {
	longest := ""
	for _, p := range garbage.Prefixes()[kind] {
		if strings.HasPrefix(key, p) && len(p) > len(longest) {
			longest = p
		}
	}
	return longest
}

// put writes an entry, and adds it to sent if the program has to count it.
func (s *registryFuzzer) put(ctx context.Context, e garbage.Entry, sent map[stats.Kind]int) error {
	kind := kindOf(e.Key)
	if _, err := s.client.Put(ctx, e.Key, e.Value); err != nil {
		return fmt.Errorf("put %q: %w", e.Key, err)
	}
	s.present[e.Key] = kind
	if !wire.IsIgnoredKey(garbage.Namespace, e.Key) {
		sent[kind]++
	}
	return nil
}

// remove deletes an entry. The program does not count the deletion of a key that is not
// well-formed.
func (s *registryFuzzer) remove(ctx context.Context, key string, sent map[stats.Kind]int) error {
	if _, err := s.client.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	kind := s.present[key]
	delete(s.present, key)
	if !wire.IsIgnoredKey(garbage.Namespace, key) && isWellFormed(kind, key) {
		sent[kind]++
	}
	return nil
}

func kindOf(key string) stats.Kind {
	for kind := range garbage.Prefixes() {
		if prefixOf(kind, key) != "" {
			return kind
		}
	}
	return -1
}

// isWellFormed reports whether a key names an entry of its kind.
func isWellFormed(kind stats.Kind, key string) (ok bool) {
	switch kind {
	case stats.CardKeys:
		_, ok = wire.ParseCardKey(garbage.Namespace, key)
	case stats.ChannelKeys:
		_, ok = wire.ParseChannelKey(garbage.Namespace, key)
	case stats.InstanceKeys:
		for _, l := range wire.Layouts {
			if strings.HasPrefix(key, l.Prefix(garbage.Namespace)) {
				_, ok = l.ParseKey(garbage.Namespace, key)
			}
		}
	}
	return ok
}
