package exposition

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/memnet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire/wiretest"
)

// fakeGateway is a fake Pushgateway on a network in memory, to which all HTTP requests go.
type fakeGateway struct {
	*memnet.Network
	start time.Time

	mu       sync.Mutex
	answer   http.HandlerFunc // nil: 200
	received []gatewayRequest
}

// gatewayRequest is one request to the gateway.
type gatewayRequest struct {
	After          time.Duration // since the start of the test
	Method, URL    string
	User, Password string
	ContentType    string
	Body           []byte
}

func newPushgateway(t *testing.T) *fakeGateway {
	g := &fakeGateway{Network: memnet.New(), start: time.Now()}
	server := &http.Server{Handler: g}
	go server.Serve(g.Network)
	before := http.DefaultTransport
	// Idle connections would leave goroutines behind at the end of the bubble.
	http.DefaultTransport = &http.Transport{DialContext: g.Dial, DisableKeepAlives: true}
	t.Cleanup(func() {
		http.DefaultTransport = before
		server.Close()
	})
	return g
}

func (g *fakeGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := gatewayRequest{After: time.Since(g.start), Method: r.Method, URL: r.URL.String(), ContentType: r.Header.Get("Content-Type")}
	a.User, a.Password, _ = r.BasicAuth()
	a.Body, _ = io.ReadAll(r.Body)
	g.mu.Lock()
	g.received = append(g.received, a)
	answer := g.answer
	g.mu.Unlock()
	if answer != nil {
		answer(w, r)
	}
}

// setAnswer sets how the gateway responds from now on; nil means 200.
func (g *fakeGateway) setAnswer(h http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = h
}

// requests returns the requests since the last call.
func (g *fakeGateway) requests() []gatewayRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.received
	g.received = nil
	return all
}

// summaries returns the requests since the last call, without their bodies.
func (g *fakeGateway) summaries() []gatewayRequest {
	all := g.requests()
	for i := range all {
		all[i].ContentType, all[i].Body = "", nil
	}
	return all
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

// hang never responds.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// pushTest has a running Push and its gateway.
type pushTest struct {
	gateway *fakeGateway
	fleet   *fleet.Fleet
	log     *testutil.Log
	cancel  context.CancelCauseFunc
	ended   chan struct{}
}

const group = "/metrics/job/dynamo_push_metrics"

// withPush runs a test with a running Push and a fake gateway, in a synctest bubble.
func withPush(t *testing.T, change func(*Gateway), test func(*testing.T, *pushTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if change == nil {
			change = func(*Gateway) {}
		}
		p, _ := startPush(t, allowPush, change)
		test(t, p)
	})
}

// startPush runs Push with a fake gateway and a prepared fleet, until end is called or the test
// ends.
func startPush(t *testing.T, prepare func(*fleet.Fleet), changes ...func(*Gateway)) (p *pushTest, end func()) {
	t.Helper()
	p = &pushTest{gateway: newPushgateway(t), fleet: wiretest.Original(t), ended: make(chan struct{})}
	prepare(p.fleet)
	u, err := url.Parse("http://gateway:9091")
	if err != nil {
		t.Fatal(err)
	}
	g := Gateway{URL: u, Job: "dynamo_push_metrics", Interval: 15 * time.Second}
	for _, change := range changes {
		change(&g)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	p.cancel = cancel
	log, logs := testutil.NewDebugLog()
	p.log = logs
	go func() {
		defer close(p.ended)
		Push(ctx, g, metricsOf(p.fleet), &p.fleet.Stats, log)
	}()
	end = func() { cancel(nil); <-p.ended }
	t.Cleanup(end)
	synctest.Wait()
	return p, end
}

// stop ends Push as a signal would, and returns how long that took.
func (p *pushTest) stop() time.Duration {
	start := time.Now()
	p.cancel(errors.New("terminated signal received"))
	<-p.ended
	return time.Since(start)
}

// wantCounts compares the numbers of successful and failed pushes.
func (p *pushTest) wantCounts(t *testing.T, ok, failed uint64) {
	t.Helper()
	testutil.Equal(t, "ok, failed pushes", [2]uint64{p.fleet.Stats.PushOK.Load(), p.fleet.Stats.PushError.Load()}, [2]uint64{ok, failed})
}

// wantLog compares the number of warnings and the number of lines that say that pushing works
// again.
func (p *pushTest) wantLog(t *testing.T, failed, again int) {
	t.Helper()
	testutil.Equal(t, "warnings, and lines that pushing works again",
		[2]int{len(p.log.Lines("level=WARN", "Failed to push metrics to Pushgateway")), len(p.log.Lines("level=INFO", "Pushing metrics to Pushgateway again"))},
		[2]int{failed, again})
}

// lastSuccess returns when the last push succeeded, since the start of the test.
func (p *pushTest) lastSuccess() time.Duration {
	return time.Unix(0, p.fleet.Stats.LastPush.Load()).Sub(p.gateway.start)
}

// This test uses a real network. The other tests check the details.
func TestPushOnARealNetwork(t *testing.T) {
	methods := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { methods <- r.Method + " " + r.URL.Path }))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := wiretest.Original(t)
	allowPush(f)
	log, _ := testutil.NewDebugLog()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Push(ctx, Gateway{URL: u, Job: "j", Interval: time.Hour}, metricsOf(f), &f.Stats, log)
	}()
	testutil.Equal(t, "first push", <-methods, "PUT /metrics/job/j")
	cancel()
	testutil.Equal(t, "last push", <-methods, "PUT /metrics/job/j")
	<-ended
}

// allowPush lets Push begin: the program leads and has polled.
func allowPush(f *fleet.Fleet) {
	f.Stats.ActsAsLeader.Store(true)
	f.Stats.RecordPoll(stats.PollOK, 0)
}
