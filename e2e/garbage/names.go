package garbage

import (
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// Namespace is the namespace of all garbage.
const Namespace = "dynamo"

// Endpoint is the endpoint that garbage names.
var Endpoint = fleet.Endpoint{Component: "backend", Name: "generate"}

// Subjects returns the subjects that the program subscribes to, with names in place of
// wildcards.
func Subjects() map[stats.Kind][]string {
	all := map[stats.Kind][]string{stats.HitRate: {wire.HitRateSubject(Namespace)}, stats.Trace: {wire.TraceSubject}}
	for kind, topic := range map[stats.Kind]string{stats.LoadEvent: wire.TopicLoad, stats.ForwardPass: wire.TopicForwardPass} {
		for _, s := range wire.EventSubjects(Namespace, topic) {
			s = strings.Replace(strings.Replace(s, "*", Endpoint.Component, 1), "*", Endpoint.Name, 1)
			all[kind] = append(all[kind], s)
		}
	}
	return all
}

// Prefixes returns the prefixes of the keys that the program watches.
func Prefixes() map[stats.Kind][]string {
	all := map[stats.Kind][]string{stats.CardKeys: {wire.CardPrefix(Namespace)}, stats.ChannelKeys: wire.ChannelPrefixes(Namespace)}
	for _, l := range wire.Layouts {
		all[stats.InstanceKeys] = append(all[stats.InstanceKeys], l.Prefix(Namespace))
	}
	return all
}

// Keys returns keys that name a worker, below every watched prefix.
func Keys(id uint64) map[stats.Kind][]string {
	in, hex := fleet.Instance{Endpoint: Endpoint, ID: id}, wire.HexID(id)
	all := make(map[stats.Kind][]string)
	for _, l := range wire.Layouts {
		all[stats.InstanceKeys] = append(all[stats.InstanceKeys], l.Key(Namespace, in))
	}
	all[stats.CardKeys] = []string{wire.CardKey(Namespace, in)}
	prefixes := wire.ChannelPrefixes(Namespace)
	all[stats.ChannelKeys] = []string{prefixes[0] + "backend/kv_metrics/" + hex, prefixes[1] + "component/backend/endpoint/generate/topic/kv_metrics/" + hex}
	return all
}

// BadKeys returns keys below the same prefixes that name no worker.
func BadKeys() map[stats.Kind][]string {
	all := make(map[stats.Kind][]string)
	for kind, prefixes := range Prefixes() {
		for _, p := range prefixes {
			for _, rest := range []string{"x", "//", "backend/generate:", "backend/generate/", "backend/generate:XYZ", "backend/generate/-1", "a/b/c/d/e/f/g",
				"\x00\xff", "backend/generate:00", strings.Repeat("y", 2000), "backend/\xff:7f"} {
				all[kind] = append(all[kind], p+rest)
			}
		}
	}
	return all
}
