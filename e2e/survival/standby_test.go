//go:build real

package survival

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/nats-io/nats.go"
)

// takeover is the time in which a standby must take over: the leader's lease and three
// seconds. In two of them it waits for a leader that may not know yet that it has lost the
// key.
const takeover = 13 * time.Second

// replicas are programs that stand by for each other, with one worker. The worker reports a
// load of 101 to the first program that polls it, 102 to the second one, and so on. The
// load therefore shows which program a message on NATS or at the gateway is from.
type replicas struct {
	*environment
	gateway *httptest.Server

	mu      sync.Mutex
	known   map[string]int // programs by their inboxes
	l2c     []message
	pushes  []message
	garbled error
}

// message is one message of a leader.
type message struct {
	at      time.Time
	program int // its number
}

func newReplicas(t *testing.T) *replicas {
	t.Helper()
	r := &replicas{environment: newEnvironment(t), known: make(map[string]int)}
	r.gateway = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		program, err := pusher(q)
		r.record(&r.pushes, program, err)
	}))
	t.Cleanup(r.gateway.Close)
	for subject, handler := range map[string]nats.MsgHandler{
		wire.StatsSubject(service): func(m *nats.Msg) { m.Respond(statsReply(1, flatLoad(uint64(100+r.replicaOf(m.Reply))))) },
		"namespace.dynamo.l2c.>":   func(m *nats.Msg) { program, err := publisher(m.Data); r.record(&r.l2c, program, err) },
	} {
		if _, err := r.nc.Subscribe(subject, handler); err != nil {
			t.Fatal(err)
		}
	}
	r.flush()
	r.register(r.ec, 1)
	return r
}

// replicaOf returns the number of the program that has this inbox, whose last token is the
// number of the poll.
func (r *replicas) replicaOf(inbox string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	inbox = inbox[:strings.LastIndexByte(inbox, '.')]
	if r.known[inbox] == 0 {
		r.known[inbox] = 1 + len(r.known)
	}
	return r.known[inbox]
}

func (r *replicas) record(messages *[]message, program int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*messages = append(*messages, message{time.Now(), program})
	r.garbled = errors.Join(r.garbled, err)
}

// publisher returns the number of the program that has published an l2c event.
func publisher(event []byte) (int, error) {
	var e struct {
		LoadAvg int `json:"load_avg"`
	}
	if err := json.Unmarshal(event, &e); err != nil {
		return 0, fmt.Errorf("l2c event %q: %w", event, err)
	}
	return e.LoadAvg - 100, nil
}

// pusher returns the number of the program that has pushed, by the push's grouping key or
// by the worker's load.
func pusher(r *http.Request) (int, error) {
	if _, name, found := strings.Cut(r.URL.Path, "/replica/"); found {
		return strconv.Atoi(name)
	}
	decoder := expfmt.NewDecoder(r.Body, expfmt.ResponseFormat(r.Header))
	for {
		var f dto.MetricFamily
		switch err := decoder.Decode(&f); {
		case err == io.EOF:
			return 0, errors.New("a push without the load of the worker")
		case err != nil:
			return 0, fmt.Errorf("push: %w", err)
		case f.GetName() == active:
			return int(f.Metric[0].Gauge.GetValue()) - 100, nil
		}
	}
}

// firstMessages returns the times of a program's first messages on NATS and at the gateway
// after a time.
func (r *replicas) firstMessages(program int, after time.Time) (l2c, push time.Time) {
	r.t.Helper()
	testutil.Until(r.t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		l2c, push = firstAfter(r.l2c, program, after), firstAfter(r.pushes, program, after)
		if l2c.IsZero() || push.IsZero() {
			return fmt.Errorf("program %d leads: l2c %v, push %v", program, l2c, push)
		}
		return nil
	})
	return l2c, push
}

func firstAfter(messages []message, program int, after time.Time) time.Time {
	for _, m := range messages {
		if m.program == program && m.at.After(after) {
			return m.at
		}
	}
	return time.Time{}
}

// checkLeaders fails the test unless the programs have led in this order, and never two at
// once: after the first message of one, its predecessors send none until their next turn.
func (r *replicas) checkLeaders(order ...int) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.garbled != nil {
		r.t.Error(r.garbled)
	}
	for what, messages := range map[string][]message{"l2c events": r.l2c, "pushes": r.pushes} {
		var got []int
		for _, m := range messages {
			if len(got) == 0 || got[len(got)-1] != m.program {
				got = append(got, m.program)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(order) {
			r.t.Errorf("%s are from the programs %v, want %v", what, got, order)
		}
	}
}

// startReplica starts the nth program.
func (r *replicas) startReplica(n int) *program {
	r.t.Helper()
	m := r.startMetrics("--standby", "--push", "--push-url", r.gateway.URL)
	m.waitFor(func(samples) error {
		p, err := m.scrapeStandby()
		if err == nil {
			err = p.match(r.loadAt(n))
		}
		return err
	})
	return m
}

// loadAt returns the samples that the nth program must have.
func (r *replicas) loadAt(n int) samples {
	return samples{workerSeries(active, 1): fmt.Sprint(100 + n), workersSeries("answering"): "1", workersSeries("silent"): "0"}
}

// scrapeStandby scrapes what the program would show if it were the leader.
func (m *program) scrapeStandby() (samples, error) {
	text, err := body(m.url + "/metrics?standby=1")
	return process.ParseSamples(text), err
}

// matchStandby returns an error unless the program shows the fleet only with ?standby=1.
func (m *program) matchStandby(want samples) error {
	p, err := m.scrape()
	if err != nil {
		return err
	}
	if n := p.count("llm_"); n > 0 || p["dynamo_metrics_leader"] != "0" {
		return fmt.Errorf("a standby has %d series of the fleet, leader is %q", n, p["dynamo_metrics_leader"])
	}
	if p, err = m.scrapeStandby(); err == nil {
		err = p.match(want)
	}
	return err
}

// matchLeader returns an error unless the program shows the fleet on /metrics.
func (m *program) matchLeader(want samples) error { return m.matchReady(merged(ready, want)) }

// sampleView scrapes a program's own view of the fleet until stop.
func (r *replicas) sampleView(m *program, want samples) (stop func()) {
	stopped := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for looks := 0; ; looks++ {
			p, err := m.scrapeStandby()
			if err == nil {
				err = p.match(want)
			}
			if err != nil {
				r.t.Errorf("scrape %d: %v", looks, err)
				return
			}
			select {
			case <-stopped:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { close(stopped); work.Wait() }) }
	r.t.Cleanup(stop)
	return stop
}

// TestStandbyReplacesAKilledLeader checks that the standby waits for none of its intervals,
// which are 2 s for polls and 15 s for pushes.
func TestStandbyReplacesAKilledLeader(t *testing.T) {
	t.Parallel()
	r := newReplicas(t)
	r.interval = "2"
	leader := r.startReplica(1)
	leader.waitForSamples(merged(ready, r.loadAt(1)))
	r.firstMessages(1, time.Time{})
	standby := r.startReplica(2)
	m := r.loadAt(2)
	standby.waitFor(func(samples) error { return standby.matchStandby(m) })
	standby.WaitForLine("Standing by: create " + instanceKey + ": another instance exists")
	stop := r.sampleView(standby, m)
	leader.Kill()
	died := time.Now()
	l2c, push := r.firstMessages(2, died)
	for what, took := range map[string]time.Duration{"l2c": l2c.Sub(died), "push": push.Sub(died)} {
		t.Logf("%s taken over after %v", what, took.Round(time.Millisecond))
		if took > takeover+slack {
			t.Errorf("%s is taken over after %v, want %v", what, took, takeover)
		}
	}
	standby.waitForSamples(merged(ready, m))
	stop()
	r.checkLeaders(1, 2)
	standby.Terminate()
	if r.leaderLease() != 0 {
		t.Error("it has ended, and not deleted its key")
	}
}

// TestStandbyKeepsLeadingWhenTheStoppedLeaderResumes continues the first leader after its
// lease has passed to the second, and then ends the second.
func TestStandbyKeepsLeadingWhenTheStoppedLeaderResumes(t *testing.T) {
	t.Parallel()
	r := newReplicas(t)
	leader := r.startReplica(1)
	leader.waitForSamples(merged(ready, r.loadAt(1)))
	r.firstMessages(1, time.Time{})
	standby := r.startReplica(2)
	standby.waitFor(func(samples) error { return standby.matchStandby(r.loadAt(2)) })
	stop := r.sampleView(standby, r.loadAt(2))
	began := time.Now()
	r.freeze(leader)
	r.firstMessages(2, began)
	checkThroughout(t, max(0, pauseTime-time.Since(began)), func() error { return standby.matchKept(merged(ready, r.loadAt(2))) })
	leader.Signal(syscall.SIGCONT)
	leader.WaitForLine("Standing by: create " + instanceKey + ": another instance exists")
	leader.waitFor(func(samples) error { return leader.matchStandby(r.loadAt(1)) })
	leader.waitForPolls(4)
	if err := standby.matchLeader(r.loadAt(2)); err != nil {
		t.Error(err)
	}
	r.checkLeaders(1, 2)
	stop()
	standby.Terminate()
	ended := time.Now()
	leader.waitForSamples(merged(ready, r.loadAt(1)))
	r.firstMessages(1, ended)
	r.checkLeaders(1, 2, 1)
	leader.Terminate()
}

// TestStandbyRollingUpdateWithoutGap repeatedly starts the next program and ends the one
// before.
func TestStandbyRollingUpdateWithoutGap(t *testing.T) {
	t.Parallel()
	r := newReplicas(t)
	now := r.startReplica(1)
	now.waitForSamples(merged(ready, r.loadAt(1)))
	r.firstMessages(1, time.Time{})
	order := []int{1}
	for n := range shortOr(3, 10) {
		next := r.startReplica(n + 2)
		next.waitFor(func(samples) error { return next.matchStandby(r.loadAt(n + 2)) })
		stop := r.sampleView(next, r.loadAt(n+2))
		if err := now.matchLeader(r.loadAt(n + 1)); err != nil {
			t.Error(err)
		}
		began := time.Now()
		now.Signal(syscall.SIGTERM)
		checkWithin(t, time.Second, func() error { return next.matchLeader(r.loadAt(n + 2)) }) // less than any scrape interval
		l2c, push := r.firstMessages(n+2, began)
		t.Logf("after the signal its first l2c event is within %v, its first push within %v", l2c.Sub(began).Round(time.Millisecond), push.Sub(began).Round(time.Millisecond))
		if code := now.Wait(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		stop()
		order = append(order, n+2)
		now = next
	}
	r.checkLeaders(order...)
	now.Terminate()
}
