//go:build real

package survival

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// TestPushgatewayFailures has a Pushgateway whose responses the test sets. The values on it
// and on /metrics are right before and after each failure, and never wrong.
func TestPushgatewayFailures(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	var status atomic.Int64
	var mu sync.Mutex
	var held string // the last push that was accepted
	release := make(chan struct{})
	gateway := &gateway{t: t, address: process.FreeAddress(t), handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		switch code := int(status.Load()); code {
		case hanging:
			select {
			case <-release:
			case <-r.Context().Done():
			}
		case slow: // but within the timeout
			time.Sleep(500 * time.Millisecond)
			fallthrough
		case http.StatusOK:
			if err == nil && r.Method == http.MethodPut {
				mu.Lock()
				held = string(body)
				mu.Unlock()
			}
		default:
			w.WriteHeader(code)
		}
	})}
	gateway.start()
	defer gateway.stop()
	defer close(release)
	status.Store(http.StatusOK)
	m := f.startMetrics("--push", "--push-url", "http://"+gateway.address, "--push-interval", "1")
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	w := m.startSampler(always(samplesOf(b)), monotonicCounters(a, b), pairedHits(nil))
	waitForPushes := func(result string, n float64) {
		t.Helper()
		series := fmt.Sprintf("dynamo_metrics_push_total{result=%q}", result)
		first := -1.0
		m.waitFor(func(p samples) error {
			if first < 0 {
				first = p.number(series)
			}
			if p.number(series) < first+n {
				return fmt.Errorf("%v pushes end with result %s, want %v", p.number(series)-first, result, n)
			}
			return nil
		})
	}
	for i, code := range []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable, hanging, down} {
		status.Store(int64(code))
		if code == down {
			gateway.stop()
		}
		waitForPushes("error", 2)
		status.Store(int64([]int{http.StatusOK, slow}[i%2]))
		if code == down {
			gateway.start()
		}
		waitForPushes("ok", 2)
		if n := len(m.LinesWith("Failed to push")); n != i+1 {
			t.Errorf("after failure %d it is logged %d times, want %d", code, n, i+1)
		}
		mu.Lock()
		if !strings.Contains(held, active) || !strings.Contains(held, "worker_id") {
			t.Errorf("after failure %d the gateway holds %d bytes without a load", code, len(held))
		}
		mu.Unlock()
	}
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

const (
	hanging = -1
	slow    = -2
	down    = -3
)

// gateway is a Pushgateway that can be down. Its address then refuses connections.
type gateway struct {
	t       *testing.T
	address string
	handler http.Handler
	server  *httptest.Server
}

func (g *gateway) start() {
	g.t.Helper()
	l, err := net.Listen("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: g.handler}}
	g.server.Start()
}

func (g *gateway) stop() { g.server.Close() }

// dial opens a connection to the program's HTTP server, which the test closes.
func (m *program) dial() net.Conn {
	m.T.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
	if err != nil {
		m.T.Fatal(err)
	}
	m.T.Cleanup(func() { conn.Close() })
	return conn
}

func TestClientsThatStallAreClosed(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	w := m.startSampler(always(samplesOf(a, b)), monotonicCounters(a, b), pairedHits(nil), boundSamples(2, 150<<20))
	const clients = 200
	var stalled sync.WaitGroup
	for range clients {
		conn := m.dial()
		stalled.Go(func() {
			// One byte of the headers now and then, as in a slowloris attack.
			fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			for end := time.Now().Add(testutil.WaitTimeout); time.Now().Before(end); {
				conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
				if _, err := io.Copy(io.Discard, conn); err == nil || !isTimeout(err) {
					return // the program has closed the connection
				}
				fmt.Fprint(conn, "x")
			}
			t.Error("the connection of a client that stalls is not closed")
		})
	}
	stalled.Wait()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

// TestClientsThatDoNotReadResponses opens two hundred connections that do not read a
// response of many megabytes. A copy for each would be gigabytes.
func TestClientsThatDoNotReadResponses(t *testing.T) {
	f := newEnvironment(t)
	f.interval = "2" // the workers run in the process of the sampler, which parses much
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	const unknown = 40_000 // ids, which are limited to a quarter of the workers
	m := f.startMetrics("--max-workers", fmt.Sprint(4*unknown))
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	for id := range uint64(unknown) {
		if err := f.hit(1<<40+id, 3); err != nil {
			t.Fatal(err)
		}
	}
	m.waitForSamples(samples{messagesSeries(stats.HitRate): decimal(unknown)})
	r := f.startRouter(a, b)
	before, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	most := 0.0
	w := m.startSampler(always(samplesOf(a, b)), monotonicCounters(a, b), pairedHits(nil), boundSamples(unknown+2, 700<<20), func(_, now samples) error {
		most = max(most, now.number(resident))
		return nil
	})
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }), err)
	}}
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for range 200 {
		conn, err := dialer.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		<-pace.C // a later request gets another rendering
	}
	const cutOff = "dynamo_metrics_scrapes_cut_off_total"
	m.waitFor(func(p samples) error {
		if p.number(cutOff) == 0 {
			return errors.New("no client's connection has been closed")
		}
		return nil
	})
	m.waitForSamples(samplesOf(a, b))
	r.stopAndCheck(m)
	w.stop()
	t.Logf("%.0f MiB resident, at first %.0f", most/(1<<20), before.number(resident)/(1<<20))
	m.Terminate()
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

func TestClientsScraping200AtOnce(t *testing.T) {
	f := newEnvironment(t)
	f.interval = "2" // the workers run in the process of the scrapers, which read much
	control := f.startWorker(1, 10)
	m := f.startMetrics()
	ids := sequence(1000, 1000)
	f.register(f.ec, ids...)
	f.answerPollsFor(ids, 50)
	want := merged(ready, samplesOf(control), samples{workersSeries("answering"): "1001"})
	m.waitForSamples(want)
	r := f.startRouter(control)
	w := m.startSampler(always(samplesOf(control)), monotonicCounters(control), pairedHits(nil), boundSamples(1001, 150<<20))
	var scrapers sync.WaitGroup
	for range 200 {
		scrapers.Go(func() {
			for range shortOr(5, 100) {
				text, err := body(m.url + "/metrics")
				// The text is not parsed, because the workers, in the same process, would
				// miss polls.
				if n := strings.Count(text, "\n"+active+"{"); err == nil && n != 1001 {
					err = fmt.Errorf("%d loads, want 1001", n)
				}
				if s := workerSeries(active, control.id) + " 10\n"; err == nil && !strings.Contains(text, s) {
					err = fmt.Errorf("/metrics lacks %s", s)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	scrapers.Wait()
	m.waitForSamples(want)
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

// TestFileDescriptorsExhausted has clients that use up all descriptors while the servers'
// connections break, so that the program cannot connect again. When the clients have closed
// their connections, the program recovers.
func TestFileDescriptorsExhausted(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	const limit = 48
	m := f.startMetricsWith([]string{process.Installed(t, "prlimit", "util-linux"), fmt.Sprintf("--nofile=%[1]d:%[1]d", limit)})
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	before, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	if before["process_max_fds"] != fmt.Sprint(limit) {
		t.Fatalf("process_max_fds is %s, want %d", before["process_max_fds"], limit)
	}
	// One connection is the test's own, and scrapes all the time.
	m.waitFor(func(p samples) error { return p.match(samplesOf(a, b)) })
	var taken []net.Conn
	for range limit {
		conn := m.dial() // the kernel accepts connections before the program does
		fmt.Fprint(conn, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
		taken = append(taken, conn)
	}
	f.nats[0].kill()
	m.WaitForLine("Lost the connection to NATS")
	a.load.Store(11)
	f.nats[0].start()
	checkThroughout(t, shortOr(5*time.Second, 30*time.Second), func() error {
		if m.HasEnded() {
			return errEnded
		}
		p, err := m.scrape()
		if err != nil {
			return nil // the test cannot connect either
		}
		return p.match(samples{workerSeries(active, a.id): "10", workerSeries(active, b.id): "20", workersSeries("answering"): "2", connectedSeries("nats"): "0"})
	})
	for _, c := range taken {
		c.Close()
	}
	checkWithin(t, recoveryTime, func() error { return m.matchReady(merged(ready, samplesOf(a, b))) })
	w := m.startSampler(always(samplesOf(a, b)), func(_, now samples) error { return monotonicCounters(a, b)(before, now) })
	f.startRouter(a, b).stopAndCheck(m)
	w.stop()
	m.Terminate()
}

// TestFileDescriptorsTooFewToStart leaves descriptors for the listener, and none for a
// server.
func TestFileDescriptorsTooFewToStart(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	m := f.runUnderTheLowestLimit()
	for _, line := range []string{"NATS is not connected", "etcd is not connected"} {
		if rest := m.WaitForLine(line); !strings.Contains(rest, "too many open files") {
			t.Errorf("%s%s: want a mention of too many open files", line, rest)
		}
	}
	m.Terminate()
}

// runUnderTheLowestLimit starts the program under the lowest limit of file descriptors with
// which it can listen. That limit depends on the machine: the Go runtime keeps files of its
// cgroup open, and some inherited files may have numbers above the limit.
func (f *environment) runUnderTheLowestLimit() *process.Process {
	f.t.Helper()
	prlimit := process.Installed(f.t, "prlimit", "util-linux")
	for limit := 4; limit < 64; limit++ {
		m := process.Start(f.t, f.env(), prlimit, fmt.Sprintf("--nofile=%[1]d:%[1]d", limit), bin+"/metrics",
			"--host", "127.0.0.1", "--metrics-port", "0", "--component", "backend", "--endpoint", "generate")
		var over, listens bool
		testutil.Until(f.t, func() error {
			over = m.HasEnded() // read first, because the last line may be written just before the end
			listens = len(m.LinesWith("Prometheus metrics server started at ")) > 0
			if !over && !listens {
				return fmt.Errorf("under a limit of %d it neither listens nor ends", limit)
			}
			return nil
		})
		if listens {
			f.t.Logf("it listens under a limit of %d", limit)
			return m
		}
	}
	f.t.Fatal("it listens under no limit below 64")
	return nil
}

// TestDiskFull has no space for the log.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	shell, err := exec.LookPath("sh")
	if err != nil {
		process.FailOrSkip(t, "there is no sh")
	}
	address := process.FreeAddress(t)
	host, port, _ := net.SplitHostPort(address)
	m := &program{process.Start(t, append(f.env(), "DYN_LOG=trace"), shell, "-c", `exec "$0" "$@" >/dev/full 2>/dev/full`, bin+"/metrics", "--host", host,
		"--metrics-port", port, "--component", "backend", "--endpoint", "generate", "--poll-interval", f.interval), "http://" + address}
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	w := m.startSampler(always(samplesOf(a, b)), monotonicCounters(a, b), pairedHits(nil))
	f.startRouter(a, b).stopAndCheck(m)
	w.stop()
	m.Terminate()
}
