package dynlog

import (
	"slices"
	"strings"

	"dynamo-metrics/internal/near"
)

// ownTargets are the targets of the programs of this module.
var ownTargets = []string{"metrics", "nats", "etcd", "files", "kubernetes", "http", "mock_worker", "devstack"}

// foreignTargets are single-word targets of other programs that read the same DYN_LOG: Dynamo,
// its engines, and their libraries. All other targets are paths or have several words.
var foreignTargets = strings.Fields("dynamo runtime llm kvbm nixl velo planner frontend mocker vllm sglang trtllm tokenizers transformers torch " +
	"h2 hyper tower tonic tokio mio axum reqwest rustls ring quinn kube zmq zeromq neli opentelemetry figment log tracing uvicorn asyncio ray")

// warning returns why a directive may be a mistake, or "". A directive for another program is
// accepted if its target is known, or looks like a module: several words (dynamo_llm, hyper-util)
// or a path (dynamo_runtime::component).
func (d directive) warning(written string, own []string) string {
	if d.target == "" || slices.Contains(foreignTargets, d.target) || slices.ContainsFunc(own, func(t string) bool {
		return strings.HasPrefix(t, d.target) || strings.HasPrefix(d.target, t+"::")
	}) {
		return ""
	}
	what, names := "not a known target", own
	if written == d.target { // it could also be meant as a level
		what, names = "neither a level nor a known target", slices.Concat(levelNames, own)
	}
	if near.Nearest(d.target, names) == "" && strings.ContainsAny(d.target, "_-:./") {
		return ""
	}
	return what + ": " + near.Suggestion(d.target, names)
}
