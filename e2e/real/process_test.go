//go:build real

package real

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a running program. It ends with its test at the latest.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	part  []byte   // of a line that has not ended yet
	lines []string // of its standard output and standard error
}

// start runs a program. Of this process's environment it gets only what it needs to
// run, and env.
func start(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	// A test binary that is killed, or panics at its timeout, runs no cleanups.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait() // the exit code is in ProcessState
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			const last = 40
			lines := p.log()
			lines = lines[max(0, len(lines)-last):]
			t.Logf("%s %s\n%s", filepath.Base(path), strings.Join(args, " "), strings.Join(lines, "\n"))
		}
	})
	return p
}

// Write takes what the process writes.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part = append(p.part, b...)
	for {
		line, rest, found := bytes.Cut(p.part, []byte("\n"))
		if !found {
			return len(b), nil
		}
		p.lines = append(p.lines, string(line))
		p.part = rest
	}
}

// log is every line that the process has written so far.
func (p *process) log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// said are the lines so far that hold text.
func (p *process) said(text string) []string {
	return slices.DeleteFunc(p.log(), func(line string) bool { return !strings.Contains(line, text) })
}

// says waits for a line that holds text, and returns what follows text in the first
// such line.
func (p *process) says(text string) string {
	p.t.Helper()
	var rest string
	until(p.t, func() error {
		over := p.over() // looked at first: the last line may come with the end
		if lines := p.said(text); len(lines) > 0 {
			_, rest, _ = strings.Cut(lines[0], text)
			return nil
		}
		if over {
			p.t.Fatalf("%s ended without saying %q", p.cmd.Path, text)
		}
		return fmt.Errorf("%s has not said %q", p.cmd.Path, text)
	})
	return rest
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v to %s: %v", s, p.cmd.Path, err)
	}
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill() // an error says that it has ended
	<-p.ended
}

// terminate asks the process to end, and fails the test unless it does so with code 0.
func (p *process) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	until(p.t, func() error {
		if !p.over() {
			return fmt.Errorf("%s is still running after SIGTERM", p.cmd.Path)
		}
		return nil
	})
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("%s: exit code %d after SIGTERM, want 0", p.cmd.Path, code)
	}
}

// patience is how long a condition may take. It is far beyond what anything here
// needs, so that a slow machine fails no test.
const patience = time.Minute

// until runs check again and again until it has nothing to complain about, and
// fails the test with its last complaint when patience is over.
func until(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %v", patience, err)
		}
	}
}
