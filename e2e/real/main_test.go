//go:build real

// Package real runs the program as people run it: the built binaries beside Debian's
// nats-server, etcd, prometheus and pushgateway and beside real Dynamo workers and
// frontends, each a process of its own.
//
//	go test -tags real -count=1 -v ./e2e/real/
//
// A part that is not installed is skipped with a word on what to install; with
// CI=true that is a failure.
package real

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dynamo-metrics/e2e/process"
)

// bin is where TestMain has put the programs.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "e2e-real-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		if err := process.Build(dir, "../../cmd/metrics", "../../cmd/mock_worker"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// installed is the path of a program of Debian's; without it the test is over.
func installed(t *testing.T, name, debianPackage string) string {
	t.Helper()
	// A user's PATH may lack the directory that Debian puts servers in.
	for _, candidate := range []string{name, filepath.Join("/usr/sbin", name)} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	missing(t, fmt.Sprintf("%s is not installed: apt-get install %s", name, debianPackage))
	return ""
}

// missing ends a test that lacks a part. A test run that is to prove something
// cannot do so by skipping.
func missing(t *testing.T, message string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}
