package kube

import (
	"maps"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

// monitored is a release with alerts and dashboards. The output is not committed, because
// it is the files in deploy/prometheus and deploy/grafana.
var monitored = release{name: "dynamo-metrics", namespace: "dynamo", values: "testdata/monitored.values.yaml"}

func TestMonitoringAlertsAreThoseOfDeploy(t *testing.T) {
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

func TestMonitoringDashboardsAreThoseOfDeploy(t *testing.T) {
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
		t.Error("the ConfigMap has other content")
	}
	if got := o.dashboards.Labels["grafana_dashboard"]; got != "1" {
		t.Errorf("the label grafana_dashboard is %q, want 1, which the sidecar looks for", got)
	}
}

func TestMonitoringPassesHelmLint(t *testing.T) {
	if out, err := monitored.lint(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
