package near

import (
	"strings"
	"testing"
)

func TestNearestFindsName(t *testing.T) {
	names := []string{"endpoint", "etcd-endpoints", "nats-server", "push-url", "push-job", "info", "h2", "KvFull"}
	for want, best := range map[string]string{
		"endpoint": "endpoint", "endpont": "endpoint", "endpoints": "endpoint", "ednpoint": "endpoint", "Endpoint": "endpoint",
		"etcd_endpoints": "etcd-endpoints", "etcd-endpoint": "etcd-endpoints", "natsserver": "nats-server", "nats.servers": "nats-server",
		"push-ulr": "push-url", "push-jbo": "push-job", "inof": "info", "ifno": "info", "kv_full": "KvFull", "kvfull": "KvFull",
		"loud": "", "": "", "x": "", "h3": "", "server": "", "push": "", strings.Repeat("x", 1000): "",
	} {
		if got := Nearest(want, names); got != best {
			t.Errorf("%q: got %q, want %q", want, got, best)
		}
	}
}

func TestDistanceCountsEdits(t *testing.T) {
	for _, c := range []struct {
		want, have string
		edits      int
	}{
		{"metrics", "metrics", 0}, {"metrcs", "metrics", 1}, {"metricss", "metrics", 1}, {"mertics", "metrics", 1}, {"matrics", "metrics", 1},
		{"abc", "", 3}, {"", "", 0}, {"abcd", "badc", 2}, {"größe", "große", 1},
	} {
		if got, near := Distance(c.want, c.have); got != c.edits || near != (got <= len([]rune(c.want))/3) {
			t.Errorf("%q and %q: got %d (near: %v), want %d", c.want, c.have, got, near, c.edits)
		}
	}
	if _, near := Distance("abc", strings.Repeat("x", 1<<20)); near {
		t.Error("a name of a million letters is near a name of three")
	}
}

func TestSuggestionNamesNearestOrAll(t *testing.T) {
	names := []string{"fleet", "worker"}
	for want, hint := range map[string]string{"fleets": "did you mean fleet?", "x": "want one of fleet, worker"} {
		if got := Suggestion(want, names); got != hint {
			t.Errorf("%q: got %q, want %q", want, got, hint)
		}
	}
}
