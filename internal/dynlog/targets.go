package dynlog

import (
	"slices"
	"strings"

	"dynamo-metrics/internal/near"
)

// targets are those of the programs here.
var ownTargets = []string{"metrics", "nats", "etcd", "files", "kubernetes", "http", "mock_worker", "devstack"}

// elsewhere are targets of one word that others who read the same DYN_LOG have: Dynamo, its
// engines, and what they are built of. All others are paths or of several words.
var foreignTargets = strings.Fields("dynamo runtime llm kvbm nixl velo planner frontend mocker vllm sglang trtllm tokenizers transformers torch " +
	"h2 hyper tower tonic tokio mio axum reqwest rustls ring quinn kube zmq zeromq neli opentelemetry figment log tracing uvicorn asyncio ray")

// doubt says why a directive may not mean what it says; empty if it does, or is for other
// programs. Those pass without a word that are known, and those that look like a module: of
// several words (dynamo_llm, hyper-util), or a path (dynamo_runtime::component).
func (d directive) warning(written string, own []string) string {
	if d.target == "" || slices.Contains(foreignTargets, d.target) || slices.ContainsFunc(own, func(t string) bool {
		return strings.HasPrefix(t, d.target) || strings.HasPrefix(d.target, t+"::")
	}) {
		return ""
	}
	what, names := "no target here", own
	if written == d.target { // which would be a level, too
		what, names = "no level, and no target here", slices.Concat(levelNames, own)
	}
	if near.Nearest(d.target, names) == "" && strings.ContainsAny(d.target, "_-:./") {
		return ""
	}
	return what + ": " + near.Suggestion(d.target, names)
}
