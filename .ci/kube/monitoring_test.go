package kube

import (
	"maps"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

// monitored is a release with alerts and dashboards. What is rendered then is not committed: it is
// what lies in deploy/prometheus and deploy/grafana.
var monitored = release{name: "dynamo-metrics", namespace: "dynamo", values: "testdata/monitored.values.yaml"}

func TestTheAlertsAreThoseOfDeployPrometheus(t *testing.T) {
	o, err := decode(monitored.render(t))
	if err != nil {
		t.Fatal(err)
	}
	var want monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(read(t, root+"/deploy/prometheus/rules.yaml")), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, o.alerts.Spec); diff != "" || len(want.Groups) == 0 {
		t.Errorf("%d groups (-file +chart):\n%s", len(want.Groups), diff)
	}
}

func TestTheDashboardsAreThoseOfDeployGrafana(t *testing.T) {
	o, err := decode(monitored.render(t))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(root + "/deploy/grafana/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	want := make(map[string]string)
	for _, file := range files {
		want[filepath.Base(file)] = read(t, file)
	}
	if !maps.Equal(want, o.dashboards.Data) {
		t.Error("the ConfigMap holds something else")
	}
	if got := o.dashboards.Labels["grafana_dashboard"]; got != "1" {
		t.Errorf("the label grafana_dashboard is %q, want 1, which the sidecar looks for", got)
	}
}

func TestHelmLintsAlertsAndDashboards(t *testing.T) {
	if out, err := monitored.lint(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
