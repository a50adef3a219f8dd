package garbage

import (
	"fmt"
	"strconv"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/tinylib/msgp/msgp"
)

// Forged messages are correct except that they name workers and endpoints that do not
// exist. Any client that may publish, or write to the registry, can send them.

// Subject returns the subject of events of a topic at an endpoint whose names need no
// escaping.
func Subject(namespace string, e fleet.Endpoint, topic string) string {
	return "namespace." + namespace + ".component." + e.Component + ".endpoint." + e.Name + "." + topic
}

// LoadEvent returns a load of 1.6 in its envelope.
func LoadEvent(worker uint64, rank uint32, blocks uint64) []byte {
	b := msgp.AppendMapHeader(nil, 3)
	b = appendUint(b, "worker_id", worker)
	b = appendUint(b, "dp_rank", uint64(rank))
	b = appendUint(b, "kv_used_blocks", blocks)
	return envelope(worker, wire.TopicLoad, b)
}

// ForwardPass returns a forward pass of 1.6 in its envelope.
func ForwardPass(worker uint64, rank uint32, counter uint64, seconds float64) []byte {
	b := msgp.AppendMapHeader(nil, 7)
	b = appendUint(b, "version", 1)
	b = msgp.AppendString(msgp.AppendString(b, "worker_id"), strconv.FormatUint(worker, 10))
	b = appendUint(b, "dp_rank", uint64(rank))
	b = appendUint(b, "counter_id", counter)
	b = msgp.AppendFloat64(msgp.AppendString(b, "wall_time"), seconds)
	for name, fields := range map[string][]string{
		"scheduled_requests": {"num_prefill_requests", "sum_prefill_tokens", "sum_prefill_kv_tokens", "num_decode_requests", "sum_decode_kv_tokens"},
		"queued_requests":    {"num_prefill_requests", "sum_prefill_tokens", "num_decode_requests", "sum_decode_kv_tokens"},
	} {
		b = msgp.AppendMapHeader(msgp.AppendString(b, name), uint32(len(fields)))
		for _, field := range fields {
			b = appendUint(b, field, 1)
		}
	}
	return envelope(worker, wire.TopicForwardPass, b)
}

// envelope always has the first sequence number, so that no earlier event counts as lost.
func envelope(publisher uint64, topic string, payload []byte) []byte {
	b := msgp.AppendMapHeader(nil, 5)
	b = appendUint(b, "publisher_id", publisher)
	b = appendUint(b, "sequence", 0)
	b = appendUint(b, "published_at", 1_700_000_000_000)
	b = msgp.AppendString(msgp.AppendString(b, "topic"), topic)
	return msgp.AppendBytes(msgp.AppendString(b, "payload"), payload)
}

func appendUint(b []byte, name string, v uint64) []byte {
	return msgp.AppendUint64(msgp.AppendString(b, name), v)
}

// StatsReply returns a poll reply with the load of one endpoint of a service. If worker is
// 0, it is of a static worker with this name.
func StatsReply(service, endpoint string, worker uint64, name string, blocks uint64) []byte {
	subject := wire.Subject(service, endpoint, worker)
	return fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":%q,"id":%q,"endpoints":[{"name":%q,"subject":%q,"data":{"kv_active_blocks":%d,"kv_total_blocks":1000}}]}`,
		service, name, subject, subject, blocks)
}

// Registration returns the registry entry of a worker of 1.6.
func Registration(namespace string, in fleet.Instance) Entry {
	return Entry{wire.LayoutV1.Key(namespace, in), string(wire.LayoutV1.Value(namespace, in, "192.0.2.1:1/"+wire.HexID(in.ID)))}
}

// Card returns the registry entry of a worker's model card.
func Card(namespace string, in fleet.Instance) Entry {
	return Entry{wire.CardKey(namespace, in), `{"type":"Model","card_json":{"display_name":"forged","runtime_config":{"total_kv_blocks":1000}}}`}
}
