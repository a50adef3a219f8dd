//go:build real

// Package browser tests the web page at / as people use it: with the built program, workers
// that the tests control, mock workers, and Debian's Chromium. The tests control Chromium
// through its debugging pipe, which takes a hundred lines and no dependency.
//
//	go test -tags real -count=1 -v ./e2e/browser/
//
// Without Chromium the tests are skipped with a message about what to install; with CI=true
// they fail. DYNAMO_SCREENSHOTS names a directory for pictures of each state of the page.
package browser

import (
	"testing"

	"dynamo-metrics/e2e/process"
)

// bin is the directory of the built programs.
var bin string

func TestMain(m *testing.M) { process.Main(m, &bin, "../../cmd/metrics", "../../cmd/mock_worker") }
