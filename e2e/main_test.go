// Package e2e runs the built programs against real NATS and etcd servers, embedded in the
// test, and checks what they print, serve and leave behind.
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
	// The programs' packages: without this import go test would not notice their changes,
	// and would use a cached result.
)

// bin is the directory where TestMain has built the programs.
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

// runToFailure runs a program that ends by itself, and returns its exit code and the last
// line that it wrote.
func runToFailure(t *testing.T, name string, env []string, args ...string) (code int, last string) {
	t.Helper()
	p := start(t, name, env, args...)
	return p.Wait(), p.LastLine()
}

// get makes one HTTP request. The status is 0 if there is no response.
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
