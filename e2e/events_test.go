package e2e

import (
	"encoding/binary"
	"fmt"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/tinylib/msgp/msgp"
)

// Events, keys and values as workers from 0.6 on send them, for tests of messages that mock
// workers never send.

// scope is the subject prefix on which workers of backend/generate publish in 1.6.
const scope = "namespace.dynamo.component.backend.endpoint.generate"

// event is an event in its envelope (0.9 to 1.6).
type event struct {
	publisher, sequence uint64
	topic               string
	payload             []byte
}

func (e event) envelope() []byte {
	b := msgp.AppendMapHeader(nil, 5)
	b = appendNumber(b, "publisher_id", e.publisher)
	b = appendNumber(b, "sequence", e.sequence)
	b = appendNumber(b, "published_at", uint64(time.Now().UnixMilli()))
	b = appendText(b, "topic", e.topic)
	return msgp.AppendBytes(msgp.AppendString(b, "payload"), e.payload)
}

// frames returns the frames of the event on ZMQ. The subject is the topic, or on a broker a
// longer name.
func (e event) frames(subject string) [][]byte {
	envelope := e.envelope()
	body := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(envelope)))
	return [][]byte{
		[]byte(subject),
		binary.BigEndian.AppendUint64(nil, e.publisher),
		binary.BigEndian.AppendUint64(nil, e.sequence),
		append(body, envelope...),
	}
}

// load is the payload of a load of 0.9 to 1.6: active blocks as the scheduler counts them,
// or as the engine does. Only routers report the number of tokens to be computed.
type load struct {
	worker, rank          uint64
	decode, used, prefill fleet.Opt[uint64]
}

func (l load) encode() []byte {
	b := appendNumber(msgp.AppendMapHeader(nil, 5), "worker_id", l.worker)
	b = appendNumber(b, "dp_rank", l.rank)
	b = appendOptional(b, "active_decode_blocks", l.decode)
	b = appendOptional(b, "active_prefill_tokens", l.prefill)
	return appendOptional(b, "kv_used_blocks", l.used) // from 1.1 on
}

// load09 and load16 return the payloads of loads of these releases. load06 returns a whole
// message of 0.6.
func load09(worker, blocks uint64) []byte {
	return load{worker: worker, decode: fleet.Some(blocks)}.encode()
}

func load16(worker, blocks uint64) []byte {
	return load{worker: worker, used: fleet.Some(blocks)}.encode()
}

func load06(worker, blocks uint64) []byte {
	return fmt.Appendf(nil, `{"worker_id":%d,"data":{"worker_stats":{"data_parallel_rank":0,"request_active_slots":1,"request_total_slots":8,"num_requests_waiting":0},`+
		`"kv_stats":{"kv_active_blocks":%d,"kv_total_blocks":1000,"gpu_cache_usage_perc":0.5,"gpu_prefix_cache_hit_rate":0.25},"spec_decode_stats":null}}`, worker, blocks)
}

// forwardPass returns the payload of a forward pass with one decoding request.
func forwardPass(worker string, counter uint64) []byte {
	b := appendNumber(msgp.AppendMapHeader(nil, 7), "version", 1)
	b = appendText(b, "worker_id", worker)
	b = appendNumber(appendNumber(b, "dp_rank", 0), "counter_id", counter)
	b = msgp.AppendFloat64(msgp.AppendString(b, "wall_time"), 0.5)
	for key, decoding := range map[string]uint64{"scheduled_requests": 1, "queued_requests": 0} {
		b = msgp.AppendMapHeader(msgp.AppendString(b, key), 4)
		b = appendNumber(appendNumber(b, "num_prefill_requests", 0), "sum_prefill_tokens", 0)
		b = appendNumber(appendNumber(b, "num_decode_requests", decoding), "sum_decode_kv_tokens", 512*decoding)
	}
	return b
}

func appendNumber(b []byte, name string, v uint64) []byte {
	return msgp.AppendUint64(msgp.AppendString(b, name), v)
}

func appendText(b []byte, name, v string) []byte {
	return msgp.AppendString(msgp.AppendString(b, name), v)
}

func appendOptional(b []byte, name string, o fleet.Opt[uint64]) []byte {
	if !o.OK {
		return msgp.AppendNil(msgp.AppendString(b, name))
	}
	return appendNumber(b, name, o.V)
}

// publish publishes a message on NATS.
func (s *stack) publish(subject string, message []byte) {
	s.t.Helper()
	if err := s.nats.Publish(subject, message); err != nil {
		s.t.Fatal(err)
	}
	if err := s.nats.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// entry is a registry key with its value.
type entry struct{ key, value string }

// registration returns what a worker of 1.6 registers at backend/generate, without its
// event channels: its instance and its model card.
func registration(id uint64) []entry {
	in := instance("generate", id)
	address := fmt.Sprintf("127.0.0.1:9/%x/dynamo/backend/generate", id)
	return []entry{
		{wire.LayoutV1.Key("dynamo", in), string(wire.LayoutV1.Value("dynamo", in, address))},
		{wire.CardKey("dynamo", in), fmt.Sprintf(`{"type":"Model","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":%d,`+
			`"card_json":{"display_name":"tiny","kv_cache_block_size":16,"runtime_config":{"total_kv_blocks":1000,"max_num_seqs":100,"data_parallel_size":1}}}`, id)},
	}
}

// channel returns the event channel of a publisher at backend/generate, as 1.6 registers
// it.
func channel(topic string, publisher uint64, transport string) entry {
	return entry{
		fmt.Sprintf("v1/event_channels/namespace/dynamo/component/backend/endpoint/generate/topic/%s/%x", topic, publisher),
		fmt.Sprintf(`{"type":"EventChannel","scope":{"kind":"endpoint","endpoint":{"namespace":"dynamo","component":"backend","name":"generate"}},`+
			`"topic":%q,"instance_id":%d,"transport":%s}`, topic, publisher, transport),
	}
}

// natsTransport and zmqTransport are the transports of event channels.
const natsTransport = `{"kind":"Nats","config":{"subject_prefix":"` + scope + `"}}`

func zmqTransport(address string) string {
	return fmt.Sprintf(`{"kind":"Zmq","config":{"endpoint":%q}}`, address)
}

// put and remove change keys in etcd.
func (s *stack) put(entries ...entry) {
	s.t.Helper()
	for _, e := range entries {
		if _, err := s.etcd.Put(s.t.Context(), e.key, e.value); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *stack) remove(entries ...entry) {
	s.t.Helper()
	for _, e := range entries {
		if _, err := s.etcd.Delete(s.t.Context(), e.key); err != nil {
			s.t.Fatal(err)
		}
	}
}

// messages and rejected return the names of series of the program's own counters.
func messages(kind stats.Kind) string {
	return fmt.Sprintf(`dynamo_metrics_messages_total{kind=%q}`, kind)
}

func rejected(kind stats.Kind, reason stats.Reason) string {
	return fmt.Sprintf(`dynamo_metrics_rejected_messages_total{kind=%q,reason=%q}`, kind, reason)
}
