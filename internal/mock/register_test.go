package mock

import (
	"encoding/json"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
)

func backendInstance(id uint64) fleet.Instance {
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, ID: id}
}

func equalText(t *testing.T, got []byte, want string) {
	t.Helper()
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error("(-want +got)\n", diff)
	}
}

func TestEndpointValueMatchesCaptures(t *testing.T) {
	equalText(t, endpointValue06("lab", backendInstance(2228897027003908410), ""), `{
  "component": "backend",
  "endpoint": "generate",
  "namespace": "lab",
  "instance_id": 2228897027003908410,
  "transport": {
    "nats_tcp": "lab_backend.generate-1eeea2096f7e013a"
  }
}`)
	equalText(t, endpointValue09("lab", backendInstance(2228897027003908015), "192.0.2.2"), `{"type":"Endpoint","component":"backend","endpoint":"generate",`+
		`"namespace":"lab","instance_id":2228897027003908015,"transport":{"tcp":"192.0.2.2:9/1eeea2096f7dffaf/generate"}}`)
	equalText(t, endpointValue16("lab", backendInstance(2228897027003909783), "192.0.2.2"), `{"type":"Endpoint","component":"backend","endpoint":"generate",`+
		`"namespace":"lab","instance_id":2228897027003909783,"transport":{"tcp":"192.0.2.2:9/1eeea2096f7e0697/lab/backend/generate"},`+
		`"device_type":"cuda","request_plane_codec":"msgpack"}`)
}

func TestChannelEntryMatchesCaptures(t *testing.T) {
	e := backendInstance(1).Endpoint
	key, value := channelEntry09("lab", channel{e, wire.TopicLoad, 2228897027003908015, natsTransport(namespaceScope("lab", e))})
	equalText(t, []byte(key), "v1/event_channels/lab//kv_metrics/1eeea2096f7dffaf")
	equalText(t, value, `{"type":"EventChannel","namespace":"lab","component":"","topic":"kv_metrics","instance_id":2228897027003908015,`+
		`"transport":{"kind":"Nats","config":{"subject_prefix":"namespace.lab"}}}`)

	const scope = `{"type":"EventChannel","scope":{"kind":"endpoint","endpoint":{"namespace":"lab","component":"backend","name":"generate"}},`
	key, value = channelEntry16("lab", channel{e, wire.TopicForwardPass, 1488946036567129, natsTransport(endpointScope("lab", e))})
	equalText(t, []byte(key), "v1/event_channels/namespace/lab/component/backend/endpoint/generate/topic/forward-pass-metrics/54a3043996c59")
	equalText(t, value, scope+`"topic":"forward-pass-metrics","instance_id":1488946036567129,`+
		`"transport":{"kind":"Nats","config":{"subject_prefix":"namespace.lab.component.backend.endpoint.generate"}}}`)

	key, value = channelEntry16("lab", channel{e, wire.TopicLoad, 6391982293322347, zmqTransport("tcp://192.0.2.2:38417")})
	equalText(t, []byte(key), "v1/event_channels/namespace/lab/component/backend/endpoint/generate/topic/kv_metrics/16b5795a010a6b")
	equalText(t, value, scope+`"topic":"kv_metrics","instance_id":6391982293322347,"transport":{"kind":"Zmq","config":{"endpoint":"tcp://192.0.2.2:38417"}}}`)
}

func TestChannelEntryOfUnusualNamesIsRead(t *testing.T) {
	in := fleet.Instance{Endpoint: fleet.Endpoint{Component: "Back End.2", Name: "generate-x_1"}, ID: 7}
	const namespace = "my.name space"
	key, value := channelEntry16(namespace, channel{in.Endpoint, wire.TopicLoad, 8, zmqTransport("tcp://[::1]:1")})
	got, err := wire.ParseChannel(namespace, key, value)
	if err != nil || got.Endpoint != in.Endpoint || got.Publisher != 8 {
		t.Errorf("%s: got %+v, %v", key, got, err)
	}
	e, topic, ok := wire.ParseEventSubject(namespace, endpointScope(namespace, in.Endpoint)+"."+wire.TopicLoad)
	if !ok || e != in.Endpoint || topic != wire.TopicLoad {
		t.Errorf("got %v, %q, %v", e, topic, ok)
	}
}

func TestCardIsReadByWire(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		v := eventFormat{wrapsCard: wrapped}
		value := v.card("lab", backendInstance(9), newLoad(1, 100, 2, 3, 1000, 0.5, 0.5))
		got, err := wire.ParseCard(value)
		if err != nil || got.Model != "mock" || got.KVTotal != fleet.Some[uint64](1000) || got.MaxSeqs != fleet.Some[uint64](100) ||
			got.BlockSize != fleet.Some[uint64](16) || got.Ranks != fleet.Some[uint64](1) {
			t.Errorf("got %+v, %v of %s", got, err, value)
		}
		var kind struct{ Type string }
		if err := json.Unmarshal(value, &kind); err != nil || (kind.Type == "Model") != wrapped {
			t.Errorf("got %s, %v", value, err)
		}
	}
	got, err := wire.ParseCard((&eventFormat{}).card("lab", backendInstance(9), fleet.Load{}))
	if err != nil || got.KVTotal.OK || got.MaxSeqs.OK {
		t.Errorf("got %+v, %v; want no totals", got, err)
	}
}
