// Package devstack runs a real NATS server and a real etcd inside the process. They start
// in milliseconds. It is only for cmd/devstack, tests and benchmarks: cmd/metrics never
// links it.
package devstack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// InUseError reports that an address to listen on is in use.
type InUseError struct{ Addr string }

func (e *InUseError) Error() string { return e.Addr + " is already in use" }

// assignedPorts are the ports that FreePort has found, so that it returns each only once.
var assignedPorts struct {
	sync.Mutex
	ports map[int]bool
}

// FreePort checks that host can listen on port and returns the port. For port 0 it finds a
// free one below the kernel's range of ephemeral ports, so that no client takes it while
// its server is down. If the port is in use, the error is an *InUseError.
func FreePort(host string, port int) (int, error) {
	if port != 0 {
		return tryPort(host, port)
	}
	assignedPorts.Lock()
	defer assignedPorts.Unlock()
	if assignedPorts.ports == nil {
		assignedPorts.ports = make(map[int]bool)
	}
	const lowest, many, tries = 15000, 15000, 1000
	var err error
	for range tries {
		if port = lowest + rand.IntN(many); assignedPorts.ports[port] {
			continue
		}
		if _, err = tryPort(host, port); err == nil {
			assignedPorts.ports[port] = true
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port was found: %w", err)
}

// tryPort does the work of FreePort for a port other than 0.
func tryPort(host string, port int) (int, error) {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, &InUseError{Addr: addr}
	}
	if err != nil {
		return 0, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return port, l.Close()
}

// dataDir returns dir, or a new temporary directory if dir is empty. Remove deletes only a
// temporary directory.
func dataDir(dir, pattern string) (path string, remove func(), err error) {
	if dir != "" {
		return dir, func() {}, os.MkdirAll(dir, 0o700)
	}
	path, err = os.MkdirTemp("", pattern)
	return path, func() { os.RemoveAll(path) }, err
}
