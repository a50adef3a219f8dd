package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running program. It is killed when its context ends, or when this process
// ends.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}

	mu         sync.Mutex
	output     []byte // the last part of the output
	firstPanic string // the line of the first panic
}

// start starts a program. Its environment is env and the few variables that every program
// needs.
func start(ctx context.Context, env []string, path string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, path, args...), ended: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait() // the exit code is in ProcessState
	}()
	return p, nil
}

// terminate sends SIGTERM, so that the process can clean up, and waits for the process to
// end. It kills a process that does not end.
func (p *process) terminate() {
	p.cmd.Process.Signal(syscall.SIGTERM) // fails only if the process has ended
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.kill()
	}
}

// kill kills the process and waits until it has ended.
func (p *process) kill() {
	p.cmd.Process.Kill() // fails only if the process has ended
	<-p.ended
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

const keptOutput = 4096 // bytes of output

// Write collects the output of the process.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.output = append(p.output, b...)
	if i := bytes.Index(p.output, []byte("panic")); i >= 0 && p.firstPanic == "" {
		line, _, _ := bytes.Cut(p.output[i:], []byte("\n"))
		p.firstPanic = string(line)
	}
	p.output = p.output[max(0, len(p.output)-keptOutput):]
	return len(b), nil
}

// lastLine returns the last line that the process has written.
func (p *process) lastLine() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(p.output), []byte("\n"))
	return string(lines[len(lines)-1])
}

// panicLine returns the first line of a panic of the process, or "" if there was none.
func (p *process) panicLine() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.firstPanic
}

// resident returns the resident memory of the process in bytes, now and at its peak.
func (p *process) resident() (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kilobytes, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			now = kilobytes * 1024
		case "VmHWM:":
			peak = kilobytes * 1024
		}
	}
	return now, peak, nil
}

// cpuTime returns the CPU time of this process, in nanoseconds.
func cpuTime() int64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return r.Utime.Nano() + r.Stime.Nano()
}
