package main

import (
	"fmt"
	"strings"
	"testing"
)

// soaked is a page of a soak: of the workers that stay, one of which has been hit, and
// of more.
func soaked(more string) view {
	var b strings.Builder
	for i := range soakStaying {
		fmt.Fprintf(&b, `llm_kv_blocks_active{component="backend",endpoint="load_metrics",worker_id="%d"} %d`+"\n", workerID(i), i%1000)
	}
	fmt.Fprintf(&b, `llm_kv_hit_rate_isl_blocks{component="backend",endpoint="load_metrics",worker_id="%d"} 4`+"\n", workerID(0))
	fmt.Fprintf(&b, `llm_kv_hit_rate_overlap_blocks{component="backend",endpoint="load_metrics",worker_id="%d"} 2`+"\n", workerID(0))
	for state, n := range map[string]int{"answering": soakStaying, "silent": 0, "unregistered": 0} {
		fmt.Fprintf(&b, `llm_workers{component="backend",endpoint="load_metrics",state=%q} %d`+"\n", state, n)
	}
	b.WriteString(`llm_kv_hit_rate_events_total{component="backend",endpoint="load_metrics"} 1` + "\n")
	b.WriteString("dynamo_metrics_workers_over_limit_total 0\n" + countedSeries + " 1\n" + more)
	return look(page(b.String()))
}

func TestASoakSeesWhatIsWrong(t *testing.T) {
	l := newLedger()
	l.hit(workerID(0), 2)
	before := soaked("")
	if err := l.check(before, soakStaying); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	for more, want := range map[string]string{
		"": "",
		`llm_kv_hit_rate_isl_blocks{component="unknown",endpoint="unknown",worker_id="7"} 4` + "\n": "an id has isl without overlap",
		`llm_kv_hit_rate_isl_blocks{component="unknown",endpoint="unknown",worker_id="7"} 5` + "\n" +
			`llm_kv_hit_rate_overlap_blocks{component="unknown",endpoint="unknown",worker_id="7"} 2` + "\n": "worker 7 has isl 5 beside an overlap of 2",
		droppedSeries + " 3\n": "3 messages were dropped",
		countedSeries + " 0\n": countedSeries + " goes back from 1 to 0",
		fmt.Sprintf(`llm_kv_blocks_active{component="backend",endpoint="generate",worker_id="%d"} 3`+"\n", workerID(1)): "has 3 blocks in use, want 1",
	} {
		now := soaked(more)
		got := ""
		if err := holds(&before, &now); err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", more, got, want)
		}
	}
	if err := l.check(soaked(`llm_worker_up{component="backend",endpoint="generate",worker_id="7"} 0`+"\n"), soakStaying); err == nil {
		t.Error("a worker that has gone is still shown, and nobody complains")
	}
}

func TestALedgerCountsForgedNames(t *testing.T) {
	l := newLedger()
	l.named(2000)
	l.named(2000)
	l.answered(2000)
	for range 6 {
		l.register(200)
		l.leave(200)
	}
	if l.loads != 4000-soakNamed || l.answers != 2000 || l.left != 1024 || l.overLimit != 1200-1024 || l.tracked != soakStaying {
		t.Errorf("got %+v, want 3900 loads and 2000 answers of no use, 1024 endpoints remembered and 176 not", l)
	}
}

func TestALedgerCountsWhoFindsNoRoom(t *testing.T) {
	l := newLedger()
	l.forge(1000)
	l.register(400)
	if want := soakStaying + 1000 + 400; l.tracked != want || l.overLimit != 0 {
		t.Errorf("got %d ids, %d over the limit; want %d, 0", l.tracked, l.overLimit, want)
	}
	l.forge(150)
	l.register(10)
	if l.tracked != soakLimit || l.overLimit != 50+10 || l.booked != 1100 || l.events != 1150 {
		t.Errorf("got %+v, want %d ids, 60 over the limit, 1100 of 1150 events booked", l, soakLimit)
	}
}
