package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dashboard is the part of a dashboard that is checked here. .ci/grafana checks whether
// Grafana has all its fields.
type dashboard struct {
	UID, Title string
	Tags       []string
	Panels     []panel
	Templating struct {
		List []struct {
			Name, Type string
			Definition string
			Datasource source
		}
	}
	Annotations struct {
		List []struct {
			Expr       string
			Datasource source
		}
	}
}

type panel struct {
	ID, MaxDataPoints        int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct {
		RefID, Expr, Format string
		Instant             bool
		Datasource          source
	}
	FieldConfig struct {
		Defaults  struct{ Unit string }
		Overrides []struct {
			Properties []struct {
				ID    string
				Value any
			}
		}
	}
	Panels []panel // of a collapsed row
}

type source struct{ Type, UID string }

// chosenDatasource is the Prometheus that users select at the top of a dashboard.
var chosenDatasource = source{"prometheus", "${datasource}"}

func parse(t *testing.T, d Dashboard) dashboard {
	t.Helper()
	var parsed dashboard
	if err := json.Unmarshal([]byte(d.Text), &parsed); err != nil {
		t.Fatalf("%s: %v", d.File, err)
	}
	return parsed
}

// all returns the panels, also those of collapsed rows.
func (d dashboard) all() []panel {
	var all []panel
	for _, p := range d.Panels {
		all = append(append(all, p), p.Panels...)
	}
	return all
}

// plots returns the panels that are not rows.
func (d dashboard) plots() []panel {
	return slices.DeleteFunc(d.all(), func(p panel) bool { return p.Type == "row" })
}

func TestDashboardsAreInTheirFiles(t *testing.T) {
	listed := make(map[string]string)
	for _, d := range Dashboards() {
		parsed := parse(t, d)
		listed[d.File] = d.Text
		if "dynamo-"+d.Name != parsed.UID || !strings.Contains(d.Text, "metrics dashboards "+d.Name+`"`) || !slices.Contains(parsed.Tags, "dynamo-metrics") {
			t.Errorf("%s: uid %s, tags %v: want those by which the dashboards link to each other", d.File, parsed.UID, parsed.Tags)
		}
	}
	paths, err := filepath.Glob("grafana/*")
	if err != nil || len(paths) != len(listed) {
		t.Errorf("files %v, %v; want %d", paths, err, len(listed))
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || string(text) != listed[filepath.Base(path)] {
			t.Errorf("%s: the binary and the file differ, %v", path, err)
		}
	}
}

func TestDashboardPanelsHaveUniqueIDsAndPositions(t *testing.T) {
	for _, d := range Dashboards() {
		ids, titles, taken := make(map[int]bool), make(map[string]bool), make(map[[2]int]string)
		for _, p := range parse(t, d).all() {
			if p.ID == 0 || ids[p.ID] || titles[p.Title] || p.Title == "" {
				t.Errorf("%s: %q (%d): want an id and a title of its own", d.File, p.Title, p.ID)
			}
			ids[p.ID], titles[p.Title] = true, true
			g := p.GridPos
			if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
				t.Errorf("%s: %q is outside of the grid: %+v", d.File, p.Title, g)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: %q lies on %q", d.File, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

// units are the units of panels, which Grafana defines.
var units = []string{"short", "none", "percentunit", "s", "cps", "reqps"}

// plugins are built into Grafana.
var plugins = []string{"stat", "timeseries", "heatmap", "table", "state-timeline"}

func TestDashboardPanelsAreDescribedAndUseTheDatasource(t *testing.T) {
	for _, d := range Dashboards() {
		for _, p := range parse(t, d).plots() {
			if len(p.Description) < 20 || !strings.HasSuffix(p.Description, ".") {
				t.Errorf("%s: %q: description %q", d.File, p.Title, p.Description)
			}
			if !slices.Contains(plugins, p.Type) || !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
				t.Errorf("%s: %q: a %s of %q", d.File, p.Title, p.Type, p.FieldConfig.Defaults.Unit)
			}
			for _, o := range p.FieldConfig.Overrides {
				for _, x := range o.Properties {
					if unit, _ := x.Value.(string); x.ID == "unit" && !slices.Contains(units, unit) {
						t.Errorf("%s: %q: unit %v", d.File, p.Title, x.Value)
					}
				}
			}
			if p.Datasource != chosenDatasource || len(p.Targets) == 0 {
				t.Errorf("%s: %q: %d queries to %+v", d.File, p.Title, len(p.Targets), p.Datasource)
			}
			refs := make(map[string]bool)
			for _, q := range p.Targets {
				if q.Datasource != chosenDatasource || q.Expr == "" || refs[q.RefID] || q.RefID == "" {
					t.Errorf("%s: %q: query %+v", d.File, p.Title, q)
				}
				refs[q.RefID] = true
			}
		}
	}
}

// variable matches a variable in a text. Grafana itself defines those that begin with __.
var variable = regexp.MustCompile(`\$\{?([a-z]\w*)`)

func TestDashboardVariablesAreDefinedAndUsed(t *testing.T) {
	for _, d := range Dashboards() {
		var defined []string
		for i, v := range parse(t, d).Templating.List {
			for _, m := range variable.FindAllStringSubmatch(v.Definition, -1) {
				if !slices.Contains(defined, m[1]) {
					t.Errorf("%s: %s is used by %s, which comes later", d.File, v.Name, m[1])
				}
			}
			defined = append(defined, v.Name)
			if i > 0 && v.Datasource != chosenDatasource {
				t.Errorf("%s: the variable %s queries %+v", d.File, v.Name, v.Datasource)
			}
		}
		var used []string
		for _, m := range variable.FindAllStringSubmatch(d.Text, -1) {
			used = append(used, m[1])
		}
		slices.Sort(used)
		slices.Sort(defined)
		if diff := cmp.Diff(defined, slices.Compact(used)); diff != "" {
			t.Errorf("%s: variables (-defined +used):\n%s", d.File, diff)
		}
	}
}

// metricName matches the name of a metric of the program in an expression or a text. In the
// name of a recording rule it follows a colon.
var metricName = regexp.MustCompile(`(?:^|[^\w:])((?:llm|dynamo_metrics)_[a-z0-9_]+)`)

// goldenSeries are the names of all series in the golden files.
func goldenSeries(t *testing.T) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob("../internal/exposition/testdata/pages/*.prom")
	if err != nil || len(paths) < 5 {
		t.Fatalf("golden files: %v, %v", paths, err)
	}
	names := make(map[string]bool)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if name := line[:strings.IndexAny(line, "{ ")]; name != "#" {
				names[name] = true
			}
		}
	}
	return names
}

func TestDashboardMetricsAreExported(t *testing.T) {
	texts := map[string]string{"rules.yaml": Rules(), "runbook.md": Runbook()}
	for _, d := range Dashboards() {
		texts[d.File] = d.Text
	}
	pages := goldenSeries(t)
	for file, text := range texts {
		found := metricName.FindAllStringSubmatch(text, -1)
		if len(found) < 3 {
			t.Errorf("%s: names %d metrics", file, len(found))
		}
		for _, m := range found {
			if !pages[m[1]] {
				t.Errorf("%s: %s is in no golden file", file, m[1])
			}
		}
	}
}

// TestDashboardCountersAreQueriedAsRates makes an exception where a counter only selects
// other series.
func TestDashboardCountersAreQueriedAsRates(t *testing.T) {
	counter := regexp.MustCompile(`(.{0,12})\b((?:llm|dynamo_metrics)_\w+(?:_total|_bucket|_sum|_count)|llm_kv_hit_rate_(?:isl|overlap)_blocks)\{`)
	gauge := "llm_kv_blocks_total llm_requests_total_slots"
	for _, d := range Dashboards() {
		n := 0
		for _, p := range parse(t, d).plots() {
			for _, q := range p.Targets {
				for _, m := range counter.FindAllStringSubmatch(q.Expr, -1) {
					if strings.Contains(gauge, m[2]) {
						continue
					}
					n++
					if !strings.HasSuffix(m[1], "rate(") && !strings.HasSuffix(m[1], ", endpoint) ") {
						t.Errorf("%s: %q: %s without a rate in %s", d.File, p.Title, m[2], q.Expr)
					}
				}
				if strings.Contains(q.Expr, "rate(") != strings.Contains(q.Expr, "[$__rate_interval]") {
					t.Errorf("%s: %q: a rate over another interval: %s", d.File, p.Title, q.Expr)
				}
			}
		}
		if n < 5 {
			t.Errorf("%s: %d counters", d.File, n)
		}
	}
}

// TestDashboardPlotsOfEveryWorkerHaveFewPoints limits the number of points, because each of
// them reads the series of every worker, of which there may be ten thousand.
func TestDashboardPlotsOfEveryWorkerHaveFewPoints(t *testing.T) {
	ofWorkers := regexp.MustCompile(`\bllm_(?:kv_blocks|kv_cache|requests|kv_hit_rate_isl|kv_hit_rate_overlap|queued|scheduled|forward|worker_request)\w*\{([^}]*)\}`)
	n := 0
	for _, d := range Dashboards() {
		for _, p := range parse(t, d).plots() {
			for _, q := range p.Targets {
				for _, m := range ofWorkers.FindAllStringSubmatch(q.Expr, -1) {
					if strings.Contains(m[1], "worker_id=") || q.Instant {
						continue
					}
					if n++; p.MaxDataPoints < 10 || p.MaxDataPoints > 100 {
						t.Errorf("%s: %q: %d points of %s", d.File, p.Title, p.MaxDataPoints, q.Expr)
					}
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("%d selectors of all workers", n)
	}
}

// TestRunbookNamesExistingPanels checks the titles in italics.
func TestRunbookNamesExistingPanels(t *testing.T) {
	titles := make(map[string]bool)
	for _, d := range Dashboards() {
		for _, p := range parse(t, d).all() {
			titles[p.Title] = true
		}
	}
	named := regexp.MustCompile(`[^*]\*([A-Z][^*\n]+)\*[^*]`).FindAllStringSubmatch(Runbook(), -1)
	if len(named) < 10 {
		t.Errorf("the runbook names %d panels", len(named))
	}
	for _, m := range named {
		if !titles[m[1]] {
			t.Errorf("no panel is called %q", m[1])
		}
	}
}
