package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// logPipe is a pipe that a program logs to.
type logPipe struct {
	t    *testing.T
	r, w *os.File
}

func newLogPipe(t *testing.T) *logPipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &logPipe{t, r, w}
}

// closeReader closes the reading end.
func (p *logPipe) closeReader() { p.r.Close() }

// fill fills the pipe, so that the next write blocks until the test reads.
func (p *logPipe) fill() {
	p.t.Helper()
	fd := int(p.w.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		p.t.Fatal(err)
	}
	piece := []byte(strings.Repeat(".", 4095) + "\n")
	for len(piece) > 0 {
		if _, err := syscall.Write(fd, piece); err == syscall.EAGAIN {
			piece = piece[:len(piece)/2]
		} else if err != nil {
			p.t.Fatal(err)
		}
	}
	if err := syscall.SetNonblock(fd, false); err != nil { // the program's end of the pipe has the same flags
		p.t.Fatal(err)
	}
}

// badLogs are logs that cannot be written, by the reason.
var badLogs = map[string]func(*testing.T) *os.File{
	"the reader has closed it": func(t *testing.T) *os.File { p := newLogPipe(t); p.closeReader(); return p.w },
	"it is not read":           func(t *testing.T) *os.File { p := newLogPipe(t); p.fill(); return p.w },
	"the disk is full":         func(t *testing.T) *os.File { return openFile(t, "/dev/full", os.O_WRONLY) },
	"writing is not permitted": func(t *testing.T) *os.File {
		return openFile(t, "/dev/null", os.O_RDONLY)
	},
}

func openFile(t *testing.T, name string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// serveTo is serve with a standard error of the test's own.
func serveTo(t *testing.T, stderr *os.File, env []string, args ...string) *server {
	t.Helper()
	port := freePort(t)
	args = append([]string{"--host", "127.0.0.1", "--metrics-port", port, "--poll-interval", "0.1"}, args...)
	return &server{process.StartTo(t, stderr, env, filepath.Join(bin, "metrics"), args...), t, "http://127.0.0.1:" + port}
}

const dropped = "dynamo_metrics_log_lines_dropped_total"

// waitForRegistered waits until the program, leader or standby, shows so many registered
// workers.
func (v *server) waitForRegistered(silent int) {
	v.t.Helper()
	testutil.Until(v.t, func() error {
		want := fmt.Sprintf(`"states":{"answering":0,"silent":%d,`, silent)
		if status, body := get(v.url + "/api/v1/fleet"); status != 200 || !strings.Contains(body, want) {
			return fmt.Errorf("GET /api/v1/fleet: %d without %s", status, want)
		}
		return nil
	})
}

func TestLogThatFailsDoesNotStopMetrics(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	all := make(map[string]*server)
	for what, log := range badLogs {
		for _, level := range []string{"info", "debug"} {
			all[what+", "+level] = serveTo(t, log(t), append(s.env(), "DYN_LOG="+level), "--standby")
		}
	}
	leaves := newLogPipe(t)
	all["the reader closes it in an outage"] = serveTo(t, leaves.w, s.env(), "--standby")
	for what, m := range all {
		t.Log(what)
		m.waitUntilReady()
	}
	leaves.closeReader()
	s.StopNATS()
	s.StopEtcd()
	for _, m := range all {
		m.waitUntilNotReady("etcd is not connected")
	}
	s.StartNATS(t)
	s.StartEtcd(t)
	for id := range uint64(300) {
		s.register(wire.LayoutInstances, fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, ID: 100 + id})
	}
	for what, m := range all {
		t.Log(what)
		m.waitUntilReady()
		m.waitForRegistered(300)
		if !strings.HasPrefix(what, "it is not read") { // some hundred lines are waiting
			m.waitFor(func(p samples) error {
				if p[dropped] == "0" || p[dropped] == "" {
					return fmt.Errorf("%s: %s is %q, want some", what, dropped, p[dropped])
				}
				return nil
			})
		}
	}
	for what, m := range all {
		t.Log(what)
		m.Terminate()
	}
}

// TestLogReportsDroppedLines reads a log that has not been read for a while.
func TestLogReportsDroppedLines(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newLogPipe(t)
	m := serveTo(t, p.w, append(s.env(), "DYN_LOG=debug", "DYN_LOGGING_JSONL=1"))
	m.waitUntilReady()
	m.waitForNATSEvents()
	p.fill()
	for range 6000 { // each logs a line
		if err := s.nats.Publish(wire.HitRateSubject("dynamo"), []byte("garbage")); err != nil {
			t.Fatal(err)
		}
	}
	m.waitFor(func(p samples) error {
		if p[dropped] == "0" {
			return fmt.Errorf("no line is missing")
		}
		return nil
	})
	lines := make(chan string, 1<<20)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(p.r); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	found := false
	testutil.Until(t, func() error {
		for {
			select {
			case line := <-lines:
				found = found || strings.Contains(line, `"level":"WARN","target":"metrics","message":"Lines of the log are missing here: `) && strings.Contains(line, `,"lines":`)
			default:
				if !found {
					return fmt.Errorf("the log does not report that lines are missing")
				}
				return nil
			}
		}
	})
	m.Terminate()
	p.w.Close()
	last := ""
	for line := range lines {
		last = line
	}
	if !strings.Contains(last, `"message":"Stopped"`) {
		t.Errorf("the last line is %s", last)
	}
}

func TestLogThatFailsKeepsExitCodes(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for what, log := range badLogs {
		for args, want := range map[string]int{"--host 127.0.0.1 --metrics-port " + port: 1, "--poll-interval abc": 2, "rules --set x=1": 2, "dashboards -o /dev/null": 1} {
			p := process.StartTo(t, log(t), nil, filepath.Join(bin, "metrics"), strings.Fields(args)...)
			if code := p.Wait(); code != want {
				t.Errorf("%s: metrics %s: exit code %d, want %d", what, args, code, want)
			}
		}
	}
	p := process.Start(t, nil, "/bin/sh", "-c", `exec "$0" --poll-interval abc 2>&-`, filepath.Join(bin, "metrics"))
	if code := p.Wait(); code != 2 {
		t.Errorf("without a standard error: exit code %d, want 2", code)
	}
}

func TestLogThatFailsDoesNotStopOtherPrograms(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for what, log := range badLogs {
		port := freePort(t)
		d := &server{process.StartTo(t, log(t), []string{"DYN_LOG=debug", "TMPDIR=" + t.TempDir()}, filepath.Join(bin, "devstack"),
			"--nats-port", "0", "--etcd-port", "0", "--metrics-port", port), t, "http://127.0.0.1:" + port}
		component := "mock-" + strings.ReplaceAll(what, " ", "-")
		w := process.StartTo(t, log(t), append(s.env(), "DYN_LOG=debug"), filepath.Join(bin, "mock_worker"), "--component", component)
		d.waitForSamples(samples{workersSeries("generate", "answering"): "3"})
		testutil.Until(t, func() error {
			if got, err := s.nats.Request(wire.StatsSubject("dynamo_"+component), nil, testutil.WaitTimeout); err != nil {
				return fmt.Errorf("%v, %w", got, err)
			}
			return nil
		})
		w.Terminate()
		d.Terminate()
	}
}

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	for what, to := range map[string]func(*testing.T) *os.File{
		"a full disk": badLogs["the disk is full"], "a closed pipe": badLogs["the reader has closed it"],
	} {
		for _, command := range []string{"metrics --help", "metrics --version", "metrics dashboards", "metrics dashboards fleet", "metrics dashboards --help",
			"metrics rules", "metrics runbook", "mock_worker --help", "mock_worker --version", "devstack --help", "devstack --version"} {
			args := strings.Fields(command)
			var stderr strings.Builder
			cmd := exec.Command(filepath.Join(bin, args[0]), args[1:]...)
			cmd.Stdout, cmd.Stderr = to(t), io.Writer(&stderr)
			err := cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 1 || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), args[0]+": print to standard output: write /dev/stdout: ") {
				t.Errorf("%s to %s: %v, exit code %d and %q, want 1 and one line", command, what, err, code, stderr.String())
			}
		}
	}
}

// TestLogReportsWorkersAndProblemsInPushMode checks the lines on workers and problems that
// exist at the start.
func TestLogReportsWorkersAndProblemsInPushMode(t *testing.T) {
	t.Parallel()
	s, g := newStack(t), newGateway(t)
	for id := range uint64(3) {
		s.register(wire.LayoutInstances, instance("generate", 0xa+id))
	}
	s.responder("dynamo_backend", []byte(`{"type":"io.nats.micro.v1.stats_response","name":"dynamo_backend","id":"x","endpoints":[{"subject":"dynamo_backend.generate-a","data":{"kv_active_blocks":"many"}}]}`))
	m := start(t, "metrics", s.env(), "--push", "--push-url", g.URL, "--poll-interval", "0.1")
	m.WaitForLine(" INFO etcd: Connected to etcd endpoint=" + s.Etcd.Endpoint())
	m.WaitForLine(" INFO metrics: 3 workers are at dynamo/backend/generate: a, b, c")
	m.WaitForLine(" WARN metrics: Problem: ")
	m.WaitForLine(" problem=malformed:backend/generate detail=")
	m.Terminate()
}
