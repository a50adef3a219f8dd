package mock

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// entry is a key of a worker in etcd and its value.
type entry struct {
	key   string
	value []byte
}

// entries returns all keys of a worker, in the order in which real workers put them.
func (w *worker) entries(in fleet.Instance, ps *publishers) []entry {
	key := w.release.layout.Key(w.Namespace, in)
	format := w.release.events
	if format == nil {
		return []entry{{key, w.release.layout.Value(w.Namespace, in, w.subject(in.ID))}}
	}
	all := []entry{{key, format.value(w.Namespace, in, w.Host)}}
	for _, p := range ps.all() {
		if p.channelEntry != nil {
			all = append(all, *p.channelEntry)
		}
	}
	return append(all, entry{wire.CardKey(w.Namespace, in), format.card(w.Namespace, in, w.load())})
}

// endpointValue06 returns the value of the earlier releases, which 0.6 puts under a new key.
func endpointValue06(namespace string, in fleet.Instance, _ string) []byte {
	service := wire.ServiceName(wire.EraPlain, namespace, in.Component)
	return wire.LayoutInstances.Value(namespace, in, wire.Subject(service, in.Name, in.ID))
}

func endpointValue09(namespace string, in fleet.Instance, host string) []byte {
	return mustJSON(struct {
		Type      string            `json:"type"`
		Component string            `json:"component"`
		Endpoint  string            `json:"endpoint"`
		Namespace string            `json:"namespace"`
		ID        uint64            `json:"instance_id"`
		Transport map[string]string `json:"transport"`
	}{"Endpoint", in.Component, in.Name, namespace, in.ID, map[string]string{
		"tcp": requestAddress(host) + "/" + wire.HexID(in.ID) + "/" + in.Name,
	}})
}

func endpointValue16(namespace string, in fleet.Instance, host string) []byte {
	return wire.LayoutV1.Value(namespace, in, fmt.Sprintf("%s/%s/%s/%s/%s", requestAddress(host), wire.HexID(in.ID), namespace, in.Component, in.Name))
}

// requestAddress returns the address that a worker registers for requests. It uses the
// discard port, where nothing listens: a mock worker serves no requests.
func requestAddress(host string) string { return net.JoinHostPort(host, "9") }

// Values of every model card.
const (
	modelName = "mock"
	blockSize = 16 // tokens
)

// card is a model card of 0.6, without the files of the model. Later releases add fields
// that this repository does not read.
type card struct {
	DisplayName   string `json:"display_name"`
	Slug          string `json:"slug"`
	ContextLength int    `json:"context_length"`
	BlockSize     int    `json:"kv_cache_block_size"`
	Migrations    int    `json:"migration_limit"`
	ModelType     string `json:"model_type"`
	ModelInput    string `json:"model_input"`

	Runtime struct {
		KVTotal         *uint64 `json:"total_kv_blocks"`
		MaxSeqs         *uint64 `json:"max_num_seqs"`
		MaxBatch        int     `json:"max_num_batched_tokens"`
		ToolCallParser  *string `json:"tool_call_parser"`
		ReasoningParser *string `json:"reasoning_parser"`
		Ranks           int     `json:"data_parallel_size"`
	} `json:"runtime_config"`
}

func (f *eventFormat) card(namespace string, in fleet.Instance, l fleet.Load) []byte {
	c := card{
		DisplayName: modelName, Slug: modelName, ContextLength: 8192, BlockSize: blockSize,
		ModelType: "Chat", ModelInput: "Tokens",
	}
	c.Runtime.KVTotal, c.Runtime.MaxSeqs = l.KVTotal.Pointer(), l.TotalSlots.Pointer()
	c.Runtime.MaxBatch, c.Runtime.Ranks = 8192, 1
	if !f.wrapsCard {
		return mustJSON(c)
	}
	return mustJSON(struct {
		Type      string `json:"type"`
		Namespace string `json:"namespace"`
		Component string `json:"component"`
		Endpoint  string `json:"endpoint"`
		ID        uint64 `json:"instance_id"`
		Card      card   `json:"card_json"`
	}{"Model", namespace, in.Component, in.Name, in.ID, c})
}

// channel is the event channel of one publisher.
type channel struct {
	endpoint  fleet.Endpoint
	topic     string
	publisher uint64
	transport transport
}

type transport struct {
	Kind   string `json:"kind"`
	Config any    `json:"config"`
}

func natsTransport(prefix string) transport {
	return transport{"Nats", map[string]string{"subject_prefix": prefix}}
}

func zmqTransport(address string) transport {
	return transport{"Zmq", map[string]string{"endpoint": address}}
}

// channelEntry09 returns the entry of a channel of the whole namespace, without a component.
func channelEntry09(namespace string, c channel) (key string, value []byte) {
	return "v1/event_channels/" + namespace + "//" + c.topic + "/" + wire.HexID(c.publisher), mustJSON(struct {
		Type      string    `json:"type"`
		Namespace string    `json:"namespace"`
		Component string    `json:"component"`
		Topic     string    `json:"topic"`
		ID        uint64    `json:"instance_id"`
		Transport transport `json:"transport"`
	}{"EventChannel", namespace, "", c.topic, c.publisher, c.transport})
}

func channelEntry16(namespace string, c channel) (key string, value []byte) {
	type name struct {
		Namespace string `json:"namespace"`
		Component string `json:"component"`
		Name      string `json:"name"`
	}
	type scope struct {
		Kind     string `json:"kind"`
		Endpoint name   `json:"endpoint"`
	}
	key = fmt.Sprintf("v1/event_channels/namespace/%s/component/%s/endpoint/%s/topic/%s/%x",
		escape(namespace), escape(c.endpoint.Component), escape(c.endpoint.Name), escape(c.topic), c.publisher)
	return key, mustJSON(struct {
		Type      string    `json:"type"`
		Scope     scope     `json:"scope"`
		Topic     string    `json:"topic"`
		ID        uint64    `json:"instance_id"`
		Transport transport `json:"transport"`
	}{"EventChannel", scope{"endpoint", name{namespace, c.endpoint.Component, c.endpoint.Name}}, c.topic, c.publisher, c.transport})
}

func namespaceScope(namespace string, _ fleet.Endpoint) string { return "namespace." + namespace }

func endpointScope(namespace string, e fleet.Endpoint) string {
	return "namespace." + escape(namespace) + ".component." + escape(e.Component) + ".endpoint." + escape(e.Name)
}

// escape returns a name as 1.6 writes it in the subjects and keys of events.
func escape(name string) string {
	var b []byte
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b = append(b, c)
		default:
			b = fmt.Appendf(b, "%%%02X", c)
		}
	}
	return string(b)
}

// sameAsWorker returns the worker's id as the publisher's id.
func sameAsWorker(worker uint64) uint64 { return worker }

// randomID returns a publisher's id below 2^53, as captured. It does not depend on the seed,
// because two processes with the same seed must not write the same keys.
func randomID(uint64) uint64 { return 1 + rand.Uint64N(1<<53-1) }

// mustJSON encodes v, which must not fail.
func mustJSON(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}
