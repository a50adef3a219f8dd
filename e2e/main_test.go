// Package e2e runs the built programs against real NATS and etcd servers, embedded
// in the test, and looks at what they print, serve and leave behind.
package e2e

import (
	"bytes"
	"net/http"
	"path/filepath"
	"testing"

	"dynamo-metrics/e2e/process"
	_ "dynamo-metrics/internal/app"
	_ "dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/testutil"
	// What the programs are made of: without it go test would not see that they
	// have changed, and repeat its last result.
)

// bin is where TestMain has put the programs.
var bin string

func TestMain(m *testing.M) {
	testutil.SetParallel(12)
	process.Main(m, &bin, append(buildFlags, "../cmd/...")...)
}

// start runs one of the programs until the end of the test.
func start(t *testing.T, name string, env []string, args ...string) *process.Process {
	t.Helper()
	return process.Start(t, env, filepath.Join(bin, name), args...)
}

// fails runs a program that is to end by itself, and returns its exit code and the
// last line it wrote.
func runToFailure(t *testing.T, name string, env []string, args ...string) (code int, last string) {
	t.Helper()
	p := start(t, name, env, args...)
	return p.Wait(), p.LastLine()
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
