package main

import (
	"fmt"
	"strings"
	"testing"
)

// summaryOfSoak returns the summary of a scrape in a soak, with the permanent workers, a hit of
// one of them, and more lines.
func summaryOfSoak(more string) summary {
	var b strings.Builder
	for i := range soakPermanent {
		fmt.Fprintf(&b, `llm_kv_blocks_active{component="backend",endpoint="load_metrics",worker_id="%d"} %d`+"\n", workerID(i), i%1000)
	}
	fmt.Fprintf(&b, `llm_kv_hit_rate_isl_blocks{component="backend",endpoint="load_metrics",worker_id="%d"} 4`+"\n", workerID(0))
	fmt.Fprintf(&b, `llm_kv_hit_rate_overlap_blocks{component="backend",endpoint="load_metrics",worker_id="%d"} 2`+"\n", workerID(0))
	for state, n := range map[string]int{"answering": soakPermanent, "silent": 0, "unregistered": 0} {
		fmt.Fprintf(&b, `llm_workers{component="backend",endpoint="load_metrics",state=%q} %d`+"\n", state, n)
	}
	b.WriteString(`llm_kv_hit_rate_events_total{component="backend",endpoint="load_metrics"} 1` + "\n")
	b.WriteString("dynamo_metrics_workers_over_limit_total 0\n" + countedSeries + " 1\n" + more)
	return summarize(metricsText(b.String()))
}

func TestSamplerFindsBrokenInvariants(t *testing.T) {
	l := newExpectation()
	l.recordHit(workerID(0), 2)
	before := summaryOfSoak("")
	if err := l.check(before, soakPermanent); err != nil {
		t.Errorf("an error where all is well: %v", err)
	}
	for more, want := range map[string]string{
		"": "",
		`llm_kv_hit_rate_isl_blocks{component="unknown",endpoint="unknown",worker_id="7"} 4` + "\n": "an id has isl without overlap",
		`llm_kv_hit_rate_isl_blocks{component="unknown",endpoint="unknown",worker_id="7"} 5` + "\n" +
			`llm_kv_hit_rate_overlap_blocks{component="unknown",endpoint="unknown",worker_id="7"} 2` + "\n": "worker 7 has isl 5 with an overlap of 2",
		droppedSeries + " 3\n": "3 messages were dropped",
		countedSeries + " 0\n": countedSeries + " decreases from 1 to 0",
		fmt.Sprintf(`llm_kv_blocks_active{component="backend",endpoint="generate",worker_id="%d"} 3`+"\n", workerID(1)): "has 3 blocks in use, want 1",
	} {
		now := summaryOfSoak(more)
		got := ""
		if err := checkInvariants(&before, &now); err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", more, got, want)
		}
	}
	if err := l.check(summaryOfSoak(`llm_worker_up{component="backend",endpoint="generate",worker_id="7"} 0`+"\n"), soakPermanent); err == nil {
		t.Error("no error for a worker that has left and is still shown")
	}
}

func TestExpectationCountsMadeUpEndpoints(t *testing.T) {
	l := newExpectation()
	l.recordMadeUpLoads(2000)
	l.recordMadeUpLoads(2000)
	l.recordMadeUpReplies(2000)
	for range 6 {
		l.registerWorkers(200)
		l.removeWorkers(200)
	}
	if l.rejectedLoads != 4000-soakMadeUpBy || l.rejectedReplies != 2000 || l.remembered != 1024 || l.overLimit != 1200-1024 || l.tracked != soakPermanent {
		t.Errorf("got %+v, want 3900 loads and 2000 replies rejected, 1024 endpoints remembered and 176 not", l)
	}
}

func TestExpectationCountsWorkersOverTheLimit(t *testing.T) {
	l := newExpectation()
	l.recordForged(1000)
	l.registerWorkers(400)
	if want := soakPermanent + 1000 + 400; l.tracked != want || l.overLimit != 0 {
		t.Errorf("got %d ids, %d over the limit; want %d, 0", l.tracked, l.overLimit, want)
	}
	l.recordForged(150)
	l.registerWorkers(10)
	if l.tracked != soakMaxWorkers || l.overLimit != 50+10 || l.attributed != 1100 || l.events != 1150 {
		t.Errorf("got %+v, want %d ids, 60 over the limit, 1100 of 1150 events attributed", l, soakMaxWorkers)
	}
}
