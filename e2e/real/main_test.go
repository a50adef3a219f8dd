//go:build real

// Package real runs the program as people run it: the built binaries beside Debian's
// nats-server, etcd, prometheus and pushgateway and beside real Dynamo workers and
// frontends, each a process of its own.
//
//	go test -tags real -count=1 -v ./e2e/real/
//
// A part that is not installed is skipped with a word on what to install; with
// CI=true that is a failure. With KUBERNETES=real the Kubernetes API is Kubernetes' own,
// as .ci/nightly-kubernetes has it, and more is asked of it.
package real

import (
	"testing"

	"dynamo-metrics/e2e/process"
)

// bin is where TestMain has put the programs.
var bin string

func TestMain(m *testing.M) { process.Main(m, &bin, "../../cmd/metrics", "../../cmd/mock_worker") }
