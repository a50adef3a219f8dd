package process

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"dynamo-metrics/internal/devstack"
)

// Installed is the path of a program of Debian's; without it the test is over.
func Installed(t *testing.T, name, debianPackage string) string {
	t.Helper()
	// A user's PATH may lack the directory that Debian puts servers in.
	for _, candidate := range []string{name, filepath.Join("/usr/sbin", name)} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	FailOrSkip(t, fmt.Sprintf("%s is not installed: apt-get install %s", name, debianPackage))
	return ""
}

// NATSServer is the path of a nats-server of the version in go.mod: Debian's is too old
// for workers of 0.9.1. DYNAMO_NATS_SERVER names it; by default it is in the cache that
// .ci/run fills.
func NATSServer(t *testing.T) string {
	t.Helper()
	path := os.Getenv("DYNAMO_NATS_SERVER")
	if path == "" {
		path = filepath.Join(Cache(t), "bin", "nats-server")
	}
	if _, err := os.Stat(path); err != nil {
		FailOrSkip(t, fmt.Sprintf("there is no %[1]s: go build -o %[1]s github.com/nats-io/nats-server/v2 "+
			"(DYNAMO_NATS_SERVER names another)", path))
	}
	return path
}

// Cache is the directory that .ci/run installs into.
func Cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "dynamo-metrics")
}

// Missing ends a test that lacks a part. A test run that is to prove something
// cannot do so by skipping.
func FailOrSkip(t *testing.T, message string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// FreeAddress is a loopback address that nothing listens on. Its port is one of devstack.FreePort:
// no client takes it while its server is down.
func FreeAddress(t *testing.T) string {
	t.Helper()
	port, err := devstack.FreePort("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
