package expose

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"dynamo-metrics/internal/fleet"

	"github.com/google/go-cmp/cmp"
)

// targetsOf is what is answered of the Fleet on /api/v1/targets.
func targetsOf(t *testing.T, f *fleet.Fleet, where func(fleet.WorkerPage) string) string {
	t.Helper()
	h := WithTargets(handler(f), f, "dynamo", where, slog.New(slog.DiscardHandler))
	w := get(t, h, "/api/v1/targets")
	equal(t, "status", w.Code, http.StatusOK)
	equal(t, "content type", w.Header().Get("Content-Type"), "application/json")
	equal(t, "the page", get(t, h, "/metrics").Code, http.StatusOK)
	return w.Body.String()
}

func TestTargetsAreTheWorkersPages(t *testing.T) {
	f := fleetAt(everything, true)
	at := func(component, endpoint string, id uint64) {
		f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: endpoint}, ID: id}, fleet.Registration{Publishes: true})
	}
	at("decode", "generate", 0x6a6ca214c850b02e)
	at("decode", "generate", 10)
	at("decode", "generate", 9)
	at("decode", "clear_kv_blocks", 9) // the same process
	at("a \"b\"\\</script>ü", "é", 7)
	at("hidden", "generate", 8)
	f.SetCard("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "decode", Name: "generate"}, ID: 9}, fleet.Card{Model: "m"})
	where := func(p fleet.WorkerPage) string {
		switch p.ID {
		case 8:
			return ""
		case 9:
			return "https://[2001:db8::1]:9090/engine/metrics?a=b&c=d%20e&not-a-label=f"
		case 10:
			return "http://192.0.2.2:9090"
		}
		return fmt.Sprintf("http://192.0.2.%d:9090/metrics", p.ID%200)
	}
	text := targetsOf(t, f, where)
	if again := targetsOf(t, f, where); again != text {
		t.Errorf("asked again: %s\nwas %s", again, text)
	}
	var got []targetGroup
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	group := func(target, path, component, endpoint, id, hex string, more ...string) targetGroup {
		labels := map[string]string{"__metrics_path__": path, "dynamo_namespace": "dynamo", "component": component, "endpoint": endpoint, "worker_id": id, "worker_id_hex": hex}
		for i := 0; i < len(more); i += 2 {
			labels[more[i]] = more[i+1]
		}
		return targetGroup{[]string{target}, labels}
	}
	want := []targetGroup{
		group("192.0.2.7:9090", "/metrics", "a \"b\"\\</script>ü", "é", "7", "7"),
		group("192.0.2.2:9090", "/metrics", "decode", "generate", "10", "a"),
		group("192.0.2.78:9090", "/metrics", "decode", "generate", "7668682475648888878", "6a6ca214c850b02e"),
		group("[2001:db8::1]:9090", "/engine/metrics", "decode", "generate", "9", "9", "__scheme__", "https", "__param_a", "b", "__param_c", "d e"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestWithoutPagesThereIsAnEmptyListOfTargets(t *testing.T) {
	f := fleetAt(everything, true)
	nowhere := func(fleet.WorkerPage) string { return "" }
	equal(t, "of nobody", targetsOf(t, f, nowhere), "[]\n")
	f.Register("", fleet.Instance{Endpoint: loadMetrics, ID: 1}, fleet.Registration{Publishes: true})
	equal(t, "of one without a page", targetsOf(t, f, nowhere), "[]\n")
}
