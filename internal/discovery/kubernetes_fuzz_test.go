package discovery

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// FuzzKubernetesResource checks that the Fleet has what the cluster applied, whatever the resource
// of a ready pod contains, and nothing once the pod is gone.
func FuzzKubernetesResource(f *testing.F) {
	lines, err := os.ReadFile(filepath.Join("testdata", "kubernetes", "1.6.1", "life_watch.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(lines) {
		var event struct{ Object json.RawMessage }
		if err := json.Unmarshal(line, &event); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(event.Object), []byte(event.Object))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		all := fleet.New(fleet.Target{}, 100, true)
		c := newCluster(reader{namespaces: "lab", fleet: all, log: slog.New(slog.DiscardHandler)}, false, 10)
		c.onResourcesSynced(nil)
		c.onReadinessSynced(nil)
		for _, b := range [][]byte{first, second} {
			var slice endpointSlice
			if json.Unmarshal(b, &slice) == nil && len(slice.Endpoints) > 0 {
				c.upsertSlice(&slice)
			}
			var m workerMetadata
			if json.Unmarshal(b, &m) == nil {
				c.upsertResource(&m)
			}
			for p := range c.owned {
				c.setReady("slice", map[process]string{p: ""})
			}
		}
		channels, _ := all.Channels()
		applied := 0
		for _, r := range c.resources {
			for _, e := range r.applied {
				if e.kind == stats.ChannelKeys {
					applied++
				}
			}
		}
		if len(channels) > applied {
			t.Errorf("%d channels, and %d were applied", len(channels), applied)
		}
		for name := range c.readyBySource {
			c.setReady(name, nil)
		}
		if channels, _ := all.Channels(); len(channels) > 0 || len(all.RegisteredEndpoints()) > 0 {
			t.Errorf("left behind: %v, %v", all.RegisteredEndpoints(), channels)
		}
	})
}
