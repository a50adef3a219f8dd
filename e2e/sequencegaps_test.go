package e2e

import (
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

func TestSequenceGapsAreCounted(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var scripts []*mockScript
	var all []*mockWorker
	for _, kind := range [][2]string{{"0.9.1", mock.NATS}, {"1.6.1", mock.NATS}, {"1.6.1", mock.ZMQ}} {
		p := &mockScript{load: loadOf(1, 1, 1)}
		scripts = append(scripts, p)
		all = append(all, s.mock(p.config(kind[0], kind[1])))
	}
	m := s.metrics()
	m.waitForPublishers(2, 0)
	m.waitForNATSEvents()
	want := samples{`dynamo_metrics_event_sequence_gaps_total`: "0"}
	for i, w := range all {
		scripts[i].setLoad(loadOf(1, 1, 50))
		want[w.series("llm_kv_blocks_active")] = "50"
		if i > 0 {
			want[w.series("llm_forward_passes_missed_total")] = "0"
		}
	}
	m.waitForSamples(want)

	// Each worker loses its next three loads and two forward passes.
	for _, p := range scripts {
		lost := map[string]int{wire.TopicLoad: 3, wire.TopicForwardPass: 2}
		p.change(func(p *mockScript) {
			p.step = func(l *fleet.Load) { l.KVActive.V = min(l.KVActive.V+1, 54) }
			p.lose = func(topic string) bool { lost[topic]--; return lost[topic] >= 0 }
		})
	}
	m.waitForSamples(samples{
		all[0].series("llm_kv_blocks_active"):            "54",
		all[1].series("llm_kv_blocks_active"):            "54",
		all[2].series("llm_kv_blocks_active"):            "54",
		all[0].series("llm_forward_passes_missed_total"): "", // 0.9.1 has no forward passes
		all[1].series("llm_forward_passes_missed_total"): "2",
		all[2].series("llm_forward_passes_missed_total"): "2",
		`dynamo_metrics_event_sequence_gaps_total`:       "13",
		messages(stats.HitRate):                          "0",
	})
}
