// Package grafana checks the dashboards against the schema that Grafana publishes: the
// schema must have every field of every panel, query and variable. It is a separate
// module, because nothing else needs the schema.
package grafana

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// check returns an error if a dashboard does not match the schema.
func check(text []byte) error {
	var d dashboard.Dashboard
	err := d.UnmarshalJSONStrict(text)
	var none cog.BuildErrors // the schema allows no entries
	if errors.As(err, &none) && len(none) == 0 {
		err = nil
	}
	return errors.Join(err, d.Validate())
}

func TestDashboardsMatchGrafanasSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	paths, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(paths) < 2 {
		t.Fatalf("dashboards: %v, %v", paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(text); err != nil {
			t.Errorf("%s:\n%v", path, err)
		}
		// The check finds a wrong field everywhere: in a panel, its options, its fields, a
		// query, and a variable.
		for old, wrong := range map[string]string{
			`"gridPos": {"x"`: `"gridPos": {"left"`, `"reduceOptions"`: `"reduce"`, `"drawStyle"`: `"style"`, `"expr"`: `"expression"`, `"allValue"`: `"all"`,
		} {
			edited := strings.Replace(string(text), old, wrong, 1)
			if edited == string(text) || check([]byte(edited)) == nil {
				t.Errorf("%s with %s in place of %s: want an error", path, wrong, old)
			}
		}
	}
}
