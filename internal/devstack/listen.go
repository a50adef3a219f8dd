// Package devstack runs a real NATS server and a real etcd inside the process, up
// in milliseconds: for cmd/devstack, tests and benchmarks only. cmd/metrics never
// links it.
package devstack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// InUseError says that somebody else listens where a server was to listen.
type InUseError struct{ Addr string }

func (e *InUseError) Error() string { return e.Addr + " is already in use" }

// FreePort checks that port can be listened on at host and returns it; for port 0
// it finds a free one. A port in use gives an *InUseError.
func FreePort(host string, port int) (int, error) {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, &InUseError{Addr: addr}
	}
	if err != nil {
		return 0, fmt.Errorf("listen on %s: %w", addr, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// dataDir is dir, or a new temporary directory if dir is empty; remove undoes it.
func dataDir(dir, pattern string) (path string, remove func(), err error) {
	if dir != "" {
		return dir, func() {}, os.MkdirAll(dir, 0o700)
	}
	path, err = os.MkdirTemp("", pattern)
	return path, func() { os.RemoveAll(path) }, err
}
