//go:build real

// Package browser looks at the page at / as people do: the built program, hand-made and
// mock workers, and Debian's Chromium, which is told what to do over its own debugging
// pipe. That takes a hundred lines and no dependency.
//
//	go test -tags real -count=1 -v ./e2e/browser/
//
// Without Chromium the tests are skipped with a word on what to install; with CI=true
// that is a failure. DYNAMO_SCREENSHOTS names a directory to put pictures in.
package browser

import (
	"testing"

	"dynamo-metrics/e2e/process"
)

// bin is where TestMain has put the programs.
var bin string

func TestMain(m *testing.M) { process.Main(m, &bin, "../../cmd/metrics", "../../cmd/mock_worker") }
