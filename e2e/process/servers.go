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

// Installed returns the path of a program that Debian packages. Without it the test ends in
// FailOrSkip.
func Installed(t *testing.T, name, debianPackage string) string {
	t.Helper()
	// The PATH of a user may lack the directory in which Debian installs servers.
	for _, candidate := range []string{name, filepath.Join("/usr/sbin", name)} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	FailOrSkip(t, fmt.Sprintf("%s is not installed: apt-get install %s", name, debianPackage))
	return ""
}

// NATSServer returns the path of a nats-server of the version in go.mod, because Debian's
// is too old for workers of 0.9.1. DYNAMO_NATS_SERVER sets the path. The default is in the
// cache that .ci/run fills.
func NATSServer(t *testing.T) string {
	t.Helper()
	path := os.Getenv("DYNAMO_NATS_SERVER")
	if path == "" {
		path = filepath.Join(Cache(t), "bin", "nats-server")
	}
	if _, err := os.Stat(path); err != nil {
		FailOrSkip(t, fmt.Sprintf("there is no %[1]s: go build -o %[1]s github.com/nats-io/nats-server/v2 "+
			"(DYNAMO_NATS_SERVER names another path)", path))
	}
	return path
}

// Cache returns the directory that .ci/run installs into.
func Cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "dynamo-metrics")
}

// FailOrSkip ends a test that lacks an installed program. With CI=true the test fails,
// because a skipped test proves nothing.
func FailOrSkip(t *testing.T, message string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// FreeAddress returns a loopback address on which nothing listens. Its port is from
// devstack.FreePort, so that no client takes it while its server is down.
func FreeAddress(t *testing.T) string {
	t.Helper()
	port, err := devstack.FreePort("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
