// Package process runs programs for the end-to-end tests: each ends with its test
// at the latest, and what it writes is at hand.
package process

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

	"dynamo-metrics/internal/testutil"
)

// Process is a running program.
type Process struct {
	T *testing.T // the test that the process ends with

	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	part  []byte   // of a line that has not ended yet
	lines []string // of its standard output and standard error
}

// Main runs the tests of a package beside the programs of those packages that go build
// is told. The directory that they are in goes to bin.
func Main(m *testing.M, bin *string, build ...string) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		cmd := exec.Command("go", slices.Concat([]string{"build", "-o", dir}, build)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
			return 1
		}
		*bin = dir
		return m.Run()
	}())
}

// Start runs a program. Of this process's environment it gets only what it needs to
// run, and env.
func Start(t *testing.T, env []string, path string, args ...string) *Process {
	t.Helper()
	return StartTo(t, nil, env, path, args...)
}

// StartTo is Start with a standard error of the test's own; nil: as of Start.
func StartTo(t *testing.T, stderr *os.File, env []string, path string, args ...string) *Process {
	t.Helper()
	p := &Process{T: t, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if stderr != nil {
		p.cmd.Stderr = stderr
	}
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
		p.Kill()
		if t.Failed() {
			const last = 40
			lines := p.Lines()
			lines = lines[max(0, len(lines)-last):]
			t.Logf("%s %s\n%s", filepath.Base(path), strings.Join(args, " "), strings.Join(lines, "\n"))
		}
	})
	return p
}

// Write takes what the process writes.
func (p *Process) Write(b []byte) (int, error) {
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

// Lines is every line that the process has written so far.
func (p *Process) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// Last is the last line so far.
func (p *Process) LastLine() string {
	lines := p.Lines()
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

// Said are the lines so far that hold text.
func (p *Process) LinesWith(text string) []string {
	return slices.DeleteFunc(p.Lines(), func(line string) bool { return !strings.Contains(line, text) })
}

// Says waits for a line that holds text, and returns what follows text in the first
// such line.
func (p *Process) WaitForLine(text string) string {
	p.T.Helper()
	var rest string
	testutil.Until(p.T, func() error {
		over := p.HasEnded() // looked at first: the last line may come with the end
		if lines := p.LinesWith(text); len(lines) > 0 {
			_, rest, _ = strings.Cut(lines[0], text)
			return nil
		}
		if over {
			p.T.Fatalf("%s ended without saying %q", p.cmd.Path, text)
		}
		return fmt.Errorf("%s has not said %q", p.cmd.Path, text)
	})
	return rest
}

// Over reports whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Pid is the id of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) {
	p.T.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.T.Fatalf("%v to %s: %v", s, p.cmd.Path, err)
	}
}

// Kill ends the process as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // an error says that it has ended
	<-p.ended
}

// Ends waits for the end of the process and returns its exit code.
func (p *Process) Wait() int {
	p.T.Helper()
	testutil.Until(p.T, func() error {
		if !p.HasEnded() {
			return fmt.Errorf("%s is still running", p.cmd.Path)
		}
		return nil
	})
	return p.cmd.ProcessState.ExitCode()
}

// Terminate asks the process to end, and fails the test unless it does so with code 0.
func (p *Process) Terminate() {
	p.T.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		p.T.Fatalf("%s: exit code %d after SIGTERM, want 0", p.cmd.Path, code)
	}
}
