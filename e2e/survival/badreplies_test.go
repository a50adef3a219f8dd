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

// liar is a worker that answers polls in a way of its own.
type liar struct {
	about  string
	id     uint64
	answer func(id uint64, m *nats.Msg) (sent uint64) // nil: not at all
	shown  page                                       // of it, besides; empty: absent
	state  string                                     // that it counts as; empty: none
	reason stats.Reason                               // for which each message of it is rejected; -1: none is
}

// says is a liar whose answer always has this data.
func says(data string) func(uint64, *nats.Msg) uint64 {
	return func(id uint64, m *nats.Msg) uint64 { return respond(m, reply(id, data)) }
}

func respond(m *nats.Msg, b []byte) uint64 {
	if m.Respond(b) != nil {
		return 0
	}
	return 1
}

// million is that many levels of JSON.
var million = strings.Repeat("[", 1e6) + strings.Repeat("]", 1e6)

// with is a good load but for one field.
func with(field, value string) string {
	before, after, _ := strings.Cut(flat(77), `"`+field+`":`)
	_, after, more := strings.Cut(after, ",")
	if !more {
		return before + `"` + field + `":` + value + "}"
	}
	return before + `"` + field + `":` + value + "," + after
}

func liars() []liar {
	const none = stats.Reason(-1)
	seventySeven := func(id uint64) page { return page{of(active, id): "77", of(total, id): "1000"} }
	absent := func(id uint64) page {
		return page{of(active, id): "", of(total, id): "", of("llm_kv_cache_usage_ratio", id): ""}
	}
	var all []liar
	add := func(about, state string, reason stats.Reason, shown func(uint64) page, answer func(uint64, *nats.Msg) uint64) {
		id := uint64(100 + len(all))
		all = append(all, liar{about, id, answer, shown(id), state, reason})
	}
	add("says nothing", "silent", none, absent, nil)
	add("answers after the deadline", "answering", none, seventySeven, func(id uint64, m *nats.Msg) uint64 {
		time.AfterFunc(350*time.Millisecond, func() { m.Respond(reply(id, flat(77))) })
		return 1
	})
	add("answers twice", "answering", none, seventySeven, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, reply(id, flat(77))) + respond(m, reply(id, flat(77)))
	})
	add("answers for a service that nobody asked", "silent", stats.BadID, absent, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, replyOf("dynamo_other", id, flat(77)))
	})
	add("answers with the id of nobody", "silent", none, func(id uint64) page {
		return merged(absent(id), absent(1000+id), page{workers("unregistered"): "1"})
	}, func(id uint64, m *nats.Msg) uint64 { return respond(m, reply(1000+id, flat(77))) })
	add("answers with the id of another worker, and as that one does", "silent", none, absent,
		func(id uint64, m *nats.Msg) uint64 { return respond(m, reply(1, flat(10))) })
	add("answers with the subject of another service", "silent", stats.BadName, absent, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, []byte(strings.Replace(string(reply(id, flat(77))), `"name":"dynamo_backend"`, `"name":"dynamo_backend_020af9f2"`, 1)))
	})
	add("has 1 MB of other data", "answering", none, seventySeven, says(with("num_requests_waiting", `0,"other":"`+strings.Repeat("x", 1<<20)+`"`)))
	add("has 1 MB of no JSON", "silent", stats.BadJSON, absent, func(id uint64, m *nats.Msg) uint64 {
		return respond(m, []byte(strings.Repeat("{", 1<<20)))
	})
	add("has a million levels", "silent", stats.BadJSON, absent, says(million))
	add("has a million levels in a field nobody reads", "silent", stats.BadJSON, absent, says(with("num_requests_waiting", `0,"other":`+million)))
	add("has a NaN in JSON", "silent", stats.BadJSON, absent, says(with("kv_active_blocks", "NaN")))
	add("has null for a count", "answering", none, func(id uint64) page {
		return page{of(active, id): "", of(total, id): "", of("llm_requests_active_slots", id): "1"}
	}, says(with("kv_active_blocks", "null")))
	add("has null for a fraction", "answering", none, func(id uint64) page {
		return merged(seventySeven(id), page{of("llm_kv_cache_usage_ratio", id): "0.077", of("llm_kv_hit_rate_percent", id): "0.25"}) // of its blocks
	}, says(with("gpu_cache_usage_perc", "null")))
	for _, bad := range []string{"-1", "18446744073709551616", "1e400", "1.5", `"77"`, "[]", "{}", "true"} {
		add("has "+bad+" for a count", "malformed", stats.BadLoad, absent, says(with("kv_active_blocks", bad)))
	}
	add("says that there is no load here", "", none, absent, says("null"))
	add("has a list for a load", "malformed", stats.BadLoad, absent, says("[1,2]"))
	return all
}

// states are the counts of workers when there is one more in this state.
func states(base page, more string) page {
	p := make(page)
	for _, s := range []string{"answering", "silent", "unregistered", "malformed"} {
		n := base.number(workers(s))
		if s == more {
			n++
		}
		p[workers(s)] = fmt.Sprint(n)
	}
	return p
}

// TestWorkersThatLie has one of each kind beside a good one, whose values stay exact all
// the while. A worker that answers under the very id of another is believed: nothing in
// an answer could tell who it is from.
func TestWorkersThatLie(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(config, []byte("max_payload: 8MB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newLab(t, "-c", config)
	good := f.worker(1, 10)
	m := f.run()
	m.shows(merged(up, loads(good)))
	r := f.route(good)
	w := m.witnessed(always(loads(good)), countersOf(good), pairs(nil), func(_, now page) error {
		if now.number(resident) > 400<<20 {
			return fmt.Errorf("%s bytes resident", now[resident])
		}
		return nil
	})
	for _, l := range liars() {
		base, err := m.page()
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
		want := merged(up, loads(good), states(base, l.state), l.shown)
		m.until(func(page) error {
			if n := polls.Load(); n < 4 {
				return fmt.Errorf("%s: %d polls", l.about, n)
			}
			return nil
		})
		m.until(func(now page) error {
			if err := now.has(want); err != nil {
				return fmt.Errorf("%s: %w", l.about, err)
			}
			return nil
		})
		if err := sub.Drain(); err != nil {
			t.Fatal(err)
		}
		m.until(func(page) error {
			if sub.IsValid() {
				return errors.New("the subscription is not drained")
			}
			return nil
		})
		if l.reason >= 0 {
			series := rejected(stats.StatsReply, l.reason)
			count := page{series: decimal(uint64(base.number(series)) + sent.Load())}
			m.until(func(now page) error {
				if err := now.has(count); err != nil {
					return fmt.Errorf("%s: %w", l.about, err)
				}
				return nil
			})
		}
		f.deregister(f.ec, l.id)
		m.until(func(now page) error {
			if n := now.count(fmt.Sprintf(`worker_id="%d"`, l.id)); n > 0 {
				return fmt.Errorf("%s: it has left, and %d series of it have not", l.about, n)
			}
			return now.has(states(base, ""))
		})
	}
	r.settle(m)
	w.stop()
	m.Terminate()
}

// TestAWorkerThatStopsAnswering is silent after two polls, and nothing of its hits is lost.
func TestAWorkerThatStopsAnswering(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	good := f.worker(1, 10)
	answers := f.answerAll([]uint64{2}, 20)
	f.register(f.ec, 2)
	m := f.run()
	both := merged(up, loads(good), page{of(active, 2): "20", workers("answering"): "2", workers("silent"): "0"})
	m.shows(both)
	if err := f.hit(2, 5); err != nil {
		t.Fatal(err)
	}
	hits := page{of(isl, 2): "20", of(overlap, 2): "5"}
	m.shows(merged(both, hits))
	w := m.witnessed(always(merged(loads(good), hits)), countersOf(good, &worker{id: 2}), pairs(nil))
	for range 3 {
		answers()
		m.shows(merged(up, loads(good), hits, page{of(active, 2): "", of(total, 2): "", of("llm_worker_up", 2): "0",
			workers("answering"): "1", workers("silent"): "1"}))
		answers = f.answerAll([]uint64{2}, 20)
		m.shows(merged(both, hits))
	}
	f.route(good).settle(m)
	w.stop()
	m.Terminate()
}
