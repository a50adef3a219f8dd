//go:build real

package survival

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// badWorker is a worker that answers polls in an unusual or invalid way.
type badWorker struct {
	name   string
	id     uint64
	answer func(id uint64, m *nats.Msg) (sent uint64) // nil: it does not answer
	shown  samples                                    // further series of the worker; an empty value: absent
	state  string                                     // the state that it is counted in; empty: none
	reason stats.Reason                               // the reason for which each of its messages is rejected; -1: none is
}

// respondsWith returns an answer that always has this data.
func respondsWith(data string) func(uint64, *nats.Msg) uint64 {
	return func(id uint64, m *nats.Msg) uint64 { return respond(m, statsReply(id, data)) }
}

func respond(m *nats.Msg, b []byte) uint64 {
	if m.Respond(b) != nil {
		return 0
	}
	return 1
}

// deepJSON has a million levels.
var deepJSON = strings.Repeat("[", 1e6) + strings.Repeat("]", 1e6)

// loadWith returns a valid load in which one field is replaced.
func loadWith(field, value string) string {
	before, after, _ := strings.Cut(flatLoad(77), `"`+field+`":`)
	_, after, more := strings.Cut(after, ",")
	if !more {
		return before + `"` + field + `":` + value + "}"
	}
	return before + `"` + field + `":` + value + "," + after
}

func badWorkers() []badWorker {
	const none = stats.Reason(-1)
	seventySeven := func(id uint64) samples {
		return samples{workerSeries(active, id): "77", workerSeries(total, id): "1000"}
	}
	absent := func(id uint64) samples {
		return samples{workerSeries(active, id): "", workerSeries(total, id): "", workerSeries("llm_kv_cache_usage_ratio", id): ""}
	}
	var all []badWorker
	add := func(about, state string, reason stats.Reason, shown func(uint64) samples, answer func(uint64, *nats.Msg) uint64) {
		id := uint64(100 + len(all))
		all = append(all, badWorker{about, id, answer, shown(id), state, reason})
	}
	add("does not answer", "silent", none, absent, nil)
	add("replies after the deadline", "answering", none, seventySeven, func(id uint64, m *nats.Msg) uint64 {
		time.AfterFunc(350*time.Millisecond, func() { m.Respond(statsReply(id, flatLoad(77))) })
		return 1
	})
	add("answers twice", "answering", none, seventySeven, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, statsReply(id, flatLoad(77))) + respond(m, statsReply(id, flatLoad(77)))
	})
	add("replies for a service that was not polled", "silent", stats.BadID, absent, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, statsReplyOf("dynamo_other", id, flatLoad(77)))
	})
	add("replies with an id that is not registered", "silent", none, func(id uint64) samples {
		return merged(absent(id), absent(1000+id), samples{workersSeries("unregistered"): "1"})
	}, func(id uint64, m *nats.Msg) uint64 { return respond(m, statsReply(1000+id, flatLoad(77))) })
	add("replies with the id of another worker, and the same as that worker", "silent", none, absent,
		func(id uint64, m *nats.Msg) uint64 { return respond(m, statsReply(1, flatLoad(10))) })
	add("replies with the subject of another service", "silent", stats.BadName, absent, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, []byte(strings.Replace(string(statsReply(id, flatLoad(77))), `"name":"dynamo_backend"`, `"name":"dynamo_backend_020af9f2"`, 1)))
	})
	add("has 1 MB of other data", "answering", none, seventySeven, respondsWith(loadWith("num_requests_waiting", `0,"other":"`+strings.Repeat("x", 1<<20)+`"`)))
	add("has 1 MB that is not JSON", "silent", stats.BadJSON, absent, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, []byte(strings.Repeat("{", 1<<20)))
	})
	add("has a million levels", "silent", stats.BadJSON, absent, respondsWith(deepJSON))
	add("has a million levels in an unknown field", "silent", stats.BadJSON, absent, respondsWith(loadWith("num_requests_waiting", `0,"other":`+deepJSON)))
	add("has a NaN in JSON", "silent", stats.BadJSON, absent, respondsWith(loadWith("kv_active_blocks", "NaN")))
	add("has null for a count", "answering", none, func(id uint64) samples {
		return samples{workerSeries(active, id): "", workerSeries(total, id): "", workerSeries("llm_requests_active_slots", id): "1"}
	}, respondsWith(loadWith("kv_active_blocks", "null")))
	add("has null for a fraction", "answering", none, func(id uint64) samples {
		return merged(seventySeven(id), samples{workerSeries("llm_kv_cache_usage_ratio", id): "0.077", workerSeries("llm_kv_hit_rate_percent", id): "0.25"}) // its number of blocks
	}, respondsWith(loadWith("gpu_cache_usage_perc", "null")))
	for _, bad := range []string{"-1", "18446744073709551616", "1e400", "1.5", `"77"`, "[]", "{}", "true"} {
		add("has "+bad+" for a count", "malformed", stats.BadLoad, absent, respondsWith(loadWith("kv_active_blocks", bad)))
	}
	add("states that it has no load", "", none, absent, respondsWith("null"))
	add("has a list for a load", "malformed", stats.BadLoad, absent, respondsWith("[1,2]"))
	return all
}

// workerStates returns the counts of workers with one more in this state.
func workerStates(base samples, more string) samples {
	p := make(samples)
	for _, s := range []string{"answering", "silent", "unregistered", "malformed"} {
		n := base.number(workersSeries(s))
		if s == more {
			n++
		}
		p[workersSeries(s)] = fmt.Sprint(n)
	}
	return p
}

// TestBadReplies runs one badWorker of each kind beside a valid worker, whose values must
// stay exact. A worker that replies with another worker's id is believed, because no reply
// proves its sender.
func TestBadReplies(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(config, []byte("max_payload: 8MB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newEnvironment(t, "-c", config)
	control := f.startWorker(1, 10)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(control)))
	r := f.startRouter(control)
	w := m.startSampler(always(samplesOf(control)), monotonicCounters(control), pairedHits(nil), func(_, now samples) error {
		if now.number(resident) > 400<<20 {
			return fmt.Errorf("%s bytes resident", now[resident])
		}
		return nil
	})
	for _, l := range badWorkers() {
		base, err := m.scrape()
		if err != nil {
			t.Fatal(err)
		}
		f.register(f.ec, l.id)
		var sent, polls atomic.Uint64
		sub, err := f.nc.Subscribe(wire.StatsSubject(service), func(msg *nats.Msg) {
			if l.answer != nil {
				sent.Add(l.answer(l.id, msg))
			}
			polls.Add(1)
		})
		if err != nil {
			t.Fatal(err)
		}
		f.flush()
		want := merged(ready, samplesOf(control), workerStates(base, l.state), l.shown)
		m.waitFor(func(samples) error {
			if n := polls.Load(); n < 4 {
				return fmt.Errorf("%s: %d polls", l.name, n)
			}
			return nil
		})
		m.waitFor(func(now samples) error {
			if err := now.match(want); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			return nil
		})
		if err := sub.Drain(); err != nil {
			t.Fatal(err)
		}
		m.waitFor(func(samples) error {
			if sub.IsValid() {
				return errors.New("the subscription is not drained")
			}
			return nil
		})
		if l.reason >= 0 {
			series := rejectedSeries(stats.StatsReply, l.reason)
			count := samples{series: decimal(uint64(base.number(series)) + sent.Load())}
			m.waitFor(func(now samples) error {
				if err := now.match(count); err != nil {
					return fmt.Errorf("%s: %w", l.name, err)
				}
				return nil
			})
		}
		f.deregister(f.ec, l.id)
		m.waitFor(func(now samples) error {
			if n := now.count(fmt.Sprintf(`worker_id="%d"`, l.id)); n > 0 {
				return fmt.Errorf("%s: it has left, and %d of its series have not", l.name, n)
			}
			return now.match(workerStates(base, ""))
		})
	}
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

// TestBadRepliesWorkerThatStopsAnswering checks that the worker is silent after two polls,
// and that its hits stay.
func TestBadRepliesWorkerThatStopsAnswering(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	control := f.startWorker(1, 10)
	answers := f.answerPollsFor([]uint64{2}, 20)
	f.register(f.ec, 2)
	m := f.startMetrics()
	both := merged(ready, samplesOf(control), samples{workerSeries(active, 2): "20", workersSeries("answering"): "2", workersSeries("silent"): "0"})
	m.waitForSamples(both)
	if err := f.hit(2, 5); err != nil {
		t.Fatal(err)
	}
	hits := samples{workerSeries(isl, 2): "20", workerSeries(overlap, 2): "5"}
	m.waitForSamples(merged(both, hits))
	w := m.startSampler(always(merged(samplesOf(control), hits)), monotonicCounters(control, &worker{id: 2}), pairedHits(nil))
	for range 3 {
		answers()
		m.waitForSamples(merged(ready, samplesOf(control), hits, samples{workerSeries(active, 2): "", workerSeries(total, 2): "", workerSeries("llm_worker_up", 2): "0",
			workersSeries("answering"): "1", workersSeries("silent"): "1"}))
		answers = f.answerPollsFor([]uint64{2}, 20)
		m.waitForSamples(merged(both, hits))
	}
	f.startRouter(control).stopAndCheck(m)
	w.stop()
	m.Terminate()
}
