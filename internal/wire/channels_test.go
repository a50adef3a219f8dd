package wire

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// channelsOf decodes the event channels among captured keys, in the order of the keys.
func channelsOf(t testing.TB, entries []keyValue) []fleet.Channel {
	t.Helper()
	prefixes := ChannelPrefixes("lab")
	var all []fleet.Channel
	for _, kv := range entries {
		if !strings.HasPrefix(kv.Key, prefixes[0]) && !strings.HasPrefix(kv.Key, prefixes[1]) {
			continue
		}
		c, err := ParseChannel("lab", kv.Key, []byte(kv.Value))
		if err != nil {
			t.Fatalf("ParseChannel(%q): %v", kv.Key, err)
		}
		fromKey, ok := ParseChannelKey("lab", kv.Key)
		testutil.Equal(t, "channel of the key", fromKey, fleet.Channel{Endpoint: c.Endpoint, Topic: c.Topic, Publisher: c.Publisher})
		testutil.Equal(t, "ok", ok, true)
		all = append(all, c)
	}
	return all
}

// fileEntries returns the captured files of a release's file discovery as keys and values
// of etcd, sorted by key.
func fileEntries(t testing.TB, release string) (all []keyValue) {
	t.Helper()
	for path, value := range testutil.CapturedJSON[map[string]string](t, release, "file_kv.json") {
		slash := strings.LastIndexByte(path, '/')
		key, ok := FileKey(path[:slash], path[slash+1:])
		if !ok {
			t.Fatalf("FileKey(%q) is not ok", path)
		}
		all = append(all, keyValue{key, value})
	}
	slices.SortFunc(all, func(a, b keyValue) int { return strings.Compare(a.Key, b.Key) })
	return all
}

func TestParseChannelReadsCaptures(t *testing.T) {
	whole, component, endpoint := fleet.Endpoint{}, fleet.Endpoint{Component: "backend"}, fleet.Endpoint{Component: "backend", Name: "generate"}
	nats := func(e fleet.Endpoint, topic string, publisher uint64, prefix string) fleet.Channel {
		return fleet.Channel{Endpoint: e, Topic: topic, Publisher: publisher, Plane: fleet.NATSPlane, SubjectPrefix: prefix}
	}
	zmq := func(e fleet.Endpoint, topic string, publisher uint64, port int) fleet.Channel {
		return fleet.Channel{Endpoint: e, Topic: topic, Publisher: publisher, Plane: fleet.ZMQPlane, Address: fmt.Sprintf("tcp://192.0.2.2:%d", port)}
	}
	for name, c := range map[string]struct{ got, want []fleet.Channel }{
		"0.9.1": {channelsOf(t, etcdKeys(t, "0.9.1", "v1/")), []fleet.Channel{
			nats(whole, TopicLoad, 0x1eeea2096f7dffaf, "namespace.lab"),
			nats(whole, TopicLoad, 0x1eeea2096f7dffb3, "namespace.lab"),
		}},
		"1.2.1, files": {channelsOf(t, fileEntries(t, "1.2.1")), []fleet.Channel{
			nats(whole, TopicLoad, 0x642de08a46dcd742, "namespace.lab"),
			zmq(whole, TopicLoad, 0xbb69e82f28c48527, 41337),
			nats(component, TopicForwardPass, 0x642de08a46dcd742, "namespace.lab.component.backend"),
			zmq(component, TopicForwardPass, 0xbb69e82f28c48527, 38611),
		}},
		"1.3.1, files": {channelsOf(t, fileEntries(t, "1.3.1")), []fleet.Channel{
			nats(whole, TopicLoad, 0x568b89f16cd3e63d, "namespace.lab"),
			zmq(whole, TopicLoad, 0xe3d4813399f7905e, 46803),
			zmq(component, TopicForwardPass, 0x876378b17d40df0, 40593),
			nats(component, TopicForwardPass, 0x9587d6502fe76bb, "namespace.lab.component.backend"),
		}},
		"1.6.1": {channelsOf(t, etcdKeys(t, "1.6.1", "v1/")), []fleet.Channel{
			zmq(endpoint, "active_sequences_events", 0x18326665edc3a6, 34197),
			zmq(endpoint, "active_sequences_events", 0xbbe67c0b2a868, 45145),
			zmq(endpoint, TopicForwardPass, 0x1f6f80b741a288, 43717),
			zmq(endpoint, TopicForwardPass, 0xc1328872b866, 41253),
			zmq(endpoint, "kv-events", 0x1bd98c761f1568, 33361),
			zmq(endpoint, "kv-events", 0xb2467324522d, 43079),
			zmq(endpoint, TopicLoad, 0x16b5795a010a6b, 38417),
			zmq(endpoint, TopicLoad, 0x188c1003a5a13a, 41547),
		}},
		"1.6.1, files": {channelsOf(t, fileEntries(t, "1.6.1")), []fleet.Channel{
			zmq(endpoint, "active_sequences_events", 1890812294276976, 39361),
			zmq(endpoint, "active_sequences_events", 151783796603800, 44967),
			zmq(endpoint, TopicForwardPass, 6476123676411050, 33847),
			zmq(endpoint, TopicForwardPass, 2480441787100960, 42503),
			zmq(endpoint, "kv-events", 8507201607791104, 43181),
			zmq(endpoint, "kv-events", 4467283218464142, 44813),
			zmq(endpoint, TopicLoad, 5343017560323942, 40003),
			zmq(endpoint, TopicLoad, 2196197479524687, 44955),
		}},
	} {
		t.Run(name, func(t *testing.T) { testutil.Equal(t, "channels", c.got, c.want) })
	}
}

func TestParseChannelPublisherMatchesZMQEvents(t *testing.T) {
	for _, release := range []string{"1.0.2", "1.2.1", "1.3.1", "1.4.2", "1.5.1"} {
		publishers := make(map[string]uint64) // by topic
		for _, c := range channelsOf(t, fileEntries(t, release)) {
			if c.Plane == fleet.ZMQPlane {
				publishers[c.Topic] = c.Publisher
			}
		}
		for _, frames := range zmqEvents(t, release) {
			_, e, err := ParseFrames(frames)
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "publisher", e.Publisher, publishers[string(e.Topic)])
		}
	}
}

// scopedValue returns the value of an endpoint's channel in the form of 1.4 and later.
func scopedValue(topic, publisher, transport string) string {
	return fmt.Sprintf(`{"type":"EventChannel","scope":{"kind":"endpoint","endpoint":{"namespace":"lab","component":"c","name":"e"}},"topic":%q,"instance_id":%s,"transport":%s}`,
		topic, publisher, transport)
}

func TestParseChannelAcceptsVariants(t *testing.T) {
	const key = "v1/event_channels/namespace/lab/component/c/endpoint/e/topic/kv_metrics/1f"
	nats := `{"kind":"Nats","config":{"subject_prefix":"p"}}`
	channel := func(e fleet.Endpoint, topic string) fleet.Channel {
		return fleet.Channel{Endpoint: e, Topic: topic, Publisher: 0x1f, Plane: fleet.NATSPlane, SubjectPrefix: "p"}
	}
	value := func(scope, topic string) string {
		return fmt.Sprintf(`{"type":"EventChannel",%s,"topic":%q,"instance_id":31,"transport":%s}`, scope, topic, nats)
	}
	endpoint := fleet.Endpoint{Component: "c", Name: "e"}
	with := func(plane fleet.EventPlane, address string) fleet.Channel {
		return fleet.Channel{Endpoint: endpoint, Topic: TopicLoad, Publisher: 0x1f, Plane: plane, Address: address}
	}
	for name, c := range map[string]struct {
		namespace, key, value string
		want                  fleet.Channel
	}{
		"of a namespace": {"lab", "v1/event_channels/namespace/lab/topic/kv_metrics/1f",
			value(`"scope":{"kind":"namespace","name":"lab"}`, TopicLoad), channel(fleet.Endpoint{}, TopicLoad)},
		"of a component": {"lab", "v1/event_channels/namespace/lab/component/c/topic/kv_metrics/1f",
			value(`"scope":{"kind":"component","namespace":"lab","component":"c"}`, TopicLoad), channel(fleet.Endpoint{Component: "c"}, TopicLoad)},
		"of an endpoint, with unusual names": {"a b", "v1/event_channels/namespace/a%20b/component/c%2Ad/endpoint/e%2Ff/topic/kv%2Emetrics/1f",
			value(`"scope":{"kind":"endpoint","endpoint":{"namespace":"a b","component":"c*d","name":"e/f"}}`, "kv.metrics"),
			channel(fleet.Endpoint{Component: "c*d", Name: "e/f"}, "kv.metrics")},
		"with unusual names, up to 1.3": {"a b", "v1/event_channels/a b/c*d/kv_metrics/1f",
			value(`"namespace":"a b","component":"c*d"`, TopicLoad), channel(fleet.Endpoint{Component: "c*d"}, TopicLoad)},
		"of the namespace called namespace": {"namespace", "v1/event_channels/namespace/namespace/topic/kv_metrics/1f",
			value(`"scope":{"kind":"namespace","name":"namespace"}`, TopicLoad), channel(fleet.Endpoint{}, TopicLoad)},
		"of the namespace called namespace, up to 1.3": {"namespace", "v1/event_channels/namespace//kv_metrics/1f",
			value(`"namespace":"namespace","component":""`, TopicLoad), channel(fleet.Endpoint{}, TopicLoad)},
		"of a component called namespace, up to 1.3": {"namespace", "v1/event_channels/namespace/namespace/kv_metrics/1f",
			value(`"namespace":"namespace","component":"namespace"`, TopicLoad), channel(fleet.Endpoint{Component: "namespace"}, TopicLoad)},
		"over IPv6": {"lab", key, scopedValue(TopicLoad, "31", `{"kind":"Zmq","config":{"endpoint":"tcp://[2001:db8::1]:5000"}}`),
			with(fleet.ZMQPlane, "tcp://[2001:db8::1]:5000")},
		"of a host with a name": {"lab", key, scopedValue(TopicLoad, "31", `{"kind":"Zmq","config":{"endpoint":"tcp://worker-0.svc:5000"}}`),
			with(fleet.ZMQPlane, "tcp://worker-0.svc:5000")},
		"of brokers": {"lab", key, scopedValue(TopicLoad, "31", `{"kind":"ZmqBroker","config":{"xsub_endpoints":["tcp://h:1"],"xpub_endpoints":["tcp://h:2","tcp://i:2"]}}`),
			with(fleet.BrokerPlane, "tcp://h:2;tcp://i:2")},
		"of an unknown kind": {"lab", key, scopedValue(TopicLoad, "31", `{"kind":"Carrier","config":{"endpoint":"pigeon"}}`), with(fleet.OtherPlane, "")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseChannel(c.namespace, c.key, []byte(c.value))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseChannelRejectsInvalid(t *testing.T) {
	const key = "v1/event_channels/namespace/lab/component/c/endpoint/e/topic/kv_metrics/1f"
	nats := `{"kind":"Nats","config":{"subject_prefix":"p"}}`
	zmq := func(address string) string {
		return scopedValue(TopicLoad, "31", fmt.Sprintf(`{"kind":"Zmq","config":{"endpoint":%q}}`, address))
	}
	for name, c := range map[string]struct {
		key, value string
		mismatch   bool
	}{
		"another key":                         {"v1/event_channels/namespace/lab/component/c/endpoint/e/topic/kv-events/1f", scopedValue(TopicLoad, "31", nats), true},
		"another publisher":                   {key, scopedValue(TopicLoad, "30", nats), true},
		"another endpoint":                    {key, strings.Replace(scopedValue(TopicLoad, "31", nats), `"name":"e"`, `"name":"f"`, 1), true},
		"another namespace":                   {key, strings.Replace(scopedValue(TopicLoad, "31", nats), `"lab"`, `"lab2"`, 1), true},
		"another scope":                       {key, strings.Replace(scopedValue(TopicLoad, "31", nats), `"kind":"endpoint"`, `"kind":"component"`, 1), true},
		"an unknown scope":                    {key, strings.Replace(scopedValue(TopicLoad, "31", nats), `"kind":"endpoint"`, `"kind":"planet"`, 1), true},
		"another type":                        {key, strings.Replace(scopedValue(TopicLoad, "31", nats), "EventChannel", "EventSource", 1), true},
		"nothing":                             {key, `{}`, true},
		"null":                                {key, `null`, true},
		"the key of no channel":               {"v1/event_channels/lab/1f", scopedValue(TopicLoad, "31", nats), false},
		"empty":                               {key, ``, false},
		"a negative publisher":                {key, scopedValue(TopicLoad, "-31", nats), false},
		"no address":                          {key, zmq(""), false},
		"no TCP":                              {key, zmq("ipc:///tmp/x"), false},
		"no port":                             {key, zmq("tcp://192.0.2.2"), false},
		"port 0":                              {key, zmq("tcp://192.0.2.2:0"), false},
		"port 65536":                          {key, zmq("tcp://192.0.2.2:65536"), false},
		"a port with a name":                  {key, zmq("tcp://192.0.2.2:http"), false},
		"no host":                             {key, zmq("tcp://:5000"), false},
		"two addresses":                       {key, zmq("tcp://a;b:5000"), false},
		"too long a host":                     {key, zmq("tcp://" + strings.Repeat("h", maxName+1) + ":5000"), false},
		"any port":                            {key, zmq("tcp://*:*"), false},
		"no brokers":                          {key, scopedValue(TopicLoad, "31", `{"kind":"ZmqBroker","config":{"xpub_endpoints":[]}}`), false},
		"a broker's address without a scheme": {key, scopedValue(TopicLoad, "31", `{"kind":"ZmqBroker","config":{"xpub_endpoints":["h:1"]}}`), false},
		"too many brokers":                    {key, scopedValue(TopicLoad, "31", `{"kind":"ZmqBroker","config":{"xpub_endpoints":["tcp://h:1"`+strings.Repeat(`,"tcp://h:1"`, 1000)+`]}}`), false},
		"too long a prefix":                   {key, scopedValue(TopicLoad, "31", `{"kind":"Nats","config":{"subject_prefix":"`+strings.Repeat("p", 5*maxName)+`"}}`), false},
		"a number for a prefix":               {key, scopedValue(TopicLoad, "31", `{"kind":"Nats","config":{"subject_prefix":5}}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseChannel("lab", c.key, []byte(c.value))
			if err == nil || got != (fleet.Channel{}) || errors.Is(err, ErrMismatch) != c.mismatch {
				t.Errorf("ParseChannel = %+v, %v, want an error and nothing else, mismatch %v", got, err, c.mismatch)
			}
		})
	}
}

func TestParseChannelKeyRejectsOtherKeys(t *testing.T) {
	for _, key := range []string{
		"", "v1/event_channels/", "v1/event_channels/lab", "v1/event_channels/lab/", "v1/event_channels/lab/1f", "v1/event_channels/lab/backend/1f",
		"v1/event_channels/lab/backend/kv_metrics/", "v1/event_channels/lab/backend/kv_metrics/1G", "v1/event_channels/lab/backend/kv_metrics/0",
		"v1/event_channels/lab/backend//1f", "v1/event_channels/lab/backend/kv_metrics/1f/2f", "v1/event_channels/lab2/backend/kv_metrics/1f",
		"v1/event_channels/namespace/lab/kv_metrics/1f", "v1/event_channels/namespace/lab/topic/1f", "v1/event_channels/namespace/lab/topic//1f",
		"v1/event_channels/namespace/lab/topic/kv_metrics/1f/", "v1/event_channels/namespace/lab/topic/kv%_metrics/1f",
		"v1/event_channels/namespace/lab/component//topic/kv_metrics/1f", "v1/event_channels/namespace/lab/component/c/endpoint/topic/kv_metrics/1f",
		"v1/event_channels/namespace/lab/endpoint/e/topic/kv_metrics/1f", "v1/event_channels/namespace/lab2/topic/kv_metrics/1f",
		"v1/event_sources/namespace/lab/component/c/endpoint/e/topic/kv-events/1f",
	} {
		if c, ok := ParseChannelKey("lab", key); ok || c != (fleet.Channel{}) {
			t.Errorf("ParseChannelKey(%q) = %+v, %v, want it rejected", key, c, ok)
		}
	}
}
