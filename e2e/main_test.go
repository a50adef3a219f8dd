// Package e2e runs the built programs against real NATS and etcd servers, embedded
// in the test, and looks at what they print, serve and leave behind.
package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"

	// What the programs are made of: without it go test would not see that they
	// have changed, and repeat its last result.
	_ "dynamo-metrics/internal/program"
)

// bin is where TestMain has put the programs.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", dir, "../cmd/...")...)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// process is a running program.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu    sync.Mutex
	lines []string // of its standard error
}

// start runs a program until the end of the test. Of this process's environment it
// gets only what it needs to run, and env.
func start(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(filepath.Join(bin, name), args...), done: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.read(stderr)
		p.cmd.Wait() // the exit code is in ProcessState
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s %s\n%s", name, strings.Join(args, " "), p.log())
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		p.mu.Unlock()
	}
}

// log is what the process has written to standard error so far.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// says waits until the log holds text.
func (p *process) says(text string) {
	p.t.Helper()
	devstacktest.Until(p.t, func() error {
		if log := p.log(); !strings.Contains(log, text) {
			return fmt.Errorf("the log does not say %q:\n%s", text, log)
		}
		return nil
	})
}

// count is how many lines of the log hold text.
func (p *process) count(text string) (n int) {
	for line := range strings.SplitSeq(p.log(), "\n") {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits for the end of the process and returns its exit code.
func (p *process) ends() int {
	p.t.Helper()
	devstacktest.Until(p.t, func() error {
		select {
		case <-p.done:
			return nil
		default:
			return fmt.Errorf("still running:\n%s", p.log())
		}
	})
	return p.cmd.ProcessState.ExitCode()
}

// terminate asks the process to end, and fails the test unless it does so with code 0.
func (p *process) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.ends(); code != 0 {
		p.t.Fatalf("exit code %d after SIGTERM, want 0:\n%s", code, p.log())
	}
}

// fails runs a program that is to end by itself, and returns its exit code and the
// last line it wrote.
func fails(t *testing.T, name string, env []string, args ...string) (code int, last string) {
	t.Helper()
	p := start(t, name, env, args...)
	code = p.ends()
	return code, p.log()[strings.LastIndexByte(p.log(), '\n')+1:]
}

// get is one HTTP request; the status is 0 if nobody answers.
func get(url string) (status int, body string) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(resp.Body)
	return resp.StatusCode, b.String()
}
