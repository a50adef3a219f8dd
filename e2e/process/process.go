// Package process runs programs for the end-to-end tests. Each program ends with its test
// at the latest, and its output is collected.
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
	T *testing.T // the process is killed at the end of this test

	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	part  []byte   // the start of a line that is not complete yet
	lines []string // of standard output and standard error
}

// Main builds these packages with go build, runs the tests of the calling package, and sets
// bin to the directory of the built programs.
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

// Start runs a program. Its environment is env and the few variables that every program
// needs.
func Start(t *testing.T, env []string, path string, args ...string) *Process {
	t.Helper()
	return StartTo(t, nil, env, path, args...)
}

// StartTo is Start with a standard error of the test's own. If that is nil, it is as in
// Start.
func StartTo(t *testing.T, stderr *os.File, env []string, path string, args ...string) *Process {
	t.Helper()
	p := &Process{T: t, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if stderr != nil {
		p.cmd.Stderr = stderr
	}
	// A test binary that is killed, or that panics at its timeout, does not run cleanups.
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

// Write collects the output of the process.
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

// Lines returns every line that the process has written so far.
func (p *Process) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// LastLine returns the last line so far.
func (p *Process) LastLine() string {
	lines := p.Lines()
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

// LinesWith returns the lines so far that contain text.
func (p *Process) LinesWith(text string) []string {
	return slices.DeleteFunc(p.Lines(), func(line string) bool { return !strings.Contains(line, text) })
}

// WaitForLine waits for a line that contains text, and returns what follows text in the
// first such line.
func (p *Process) WaitForLine(text string) string {
	p.T.Helper()
	var rest string
	testutil.Until(p.T, func() error {
		over := p.HasEnded() // read first, because the last line may be written just before the end
		if lines := p.LinesWith(text); len(lines) > 0 {
			_, rest, _ = strings.Cut(lines[0], text)
			return nil
		}
		if over {
			p.T.Fatalf("%s ended without writing %q", p.cmd.Path, text)
		}
		return fmt.Errorf("%s has not written %q", p.cmd.Path, text)
	})
	return rest
}

// HasEnded reports whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) {
	p.T.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.T.Fatalf("%v to %s: %v", s, p.cmd.Path, err)
	}
}

// Kill ends the process with SIGKILL, and waits until it has ended.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // fails only if the process has ended
	<-p.ended
}

// Wait waits for the end of the process and returns its exit code.
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

// Terminate sends SIGTERM, and fails the test unless the process ends with exit code 0.
func (p *Process) Terminate() {
	p.T.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		p.T.Fatalf("%s: exit code %d after SIGTERM, want 0", p.cmd.Path, code)
	}
}
