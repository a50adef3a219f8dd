//go:build real

// Package real runs the program as operators run it: the built binaries beside Debian's
// nats-server, etcd, prometheus and pushgateway and beside real Dynamo workers and
// frontends, each in a process of its own.
//
//	go test -tags real -count=1 -v ./e2e/real/
//
// A test is skipped if a program is not installed, with a message on what to install; with
// CI=true it fails. With KUBERNETES=real, which .ci/nightly-kubernetes sets, the tests use
// Kubernetes' own API server, and there are more of them.
package real

import (
	"testing"

	"dynamo-metrics/e2e/process"
)

// bin is the directory where TestMain has built the programs.
var bin string

func TestMain(m *testing.M) { process.Main(m, &bin, "../../cmd/metrics", "../../cmd/mock_worker") }
