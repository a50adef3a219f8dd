package kube

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// objects are the objects of a release. They are nil if the release does not have them.
type objects struct {
	account    *core.ServiceAccount
	role       *rbac.Role
	binding    *rbac.RoleBinding
	deployment *apps.Deployment
	service    *core.Service
	monitor    *monitoring.ServiceMonitor
	network    *networking.NetworkPolicy
	budget     *policy.PodDisruptionBudget
	alerts     *monitoring.PrometheusRule
	dashboards *core.ConfigMap
}

// pod returns the pod template of the Deployment.
func (o objects) pod() core.PodTemplateSpec { return o.deployment.Spec.Template }

// decode decodes rendered objects into Kubernetes' own types. A field that these do not
// have, or have elsewhere, is an error, and so is a second object of one kind.
func decode(rendered string) (o objects, err error) {
	into := map[meta.TypeMeta]func([]byte) error{
		{APIVersion: "v1", Kind: "ServiceAccount"}:                        once(&o.account),
		{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role"}:        once(&o.role),
		{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "RoleBinding"}: once(&o.binding),
		{APIVersion: "apps/v1", Kind: "Deployment"}:                       once(&o.deployment),
		{APIVersion: "v1", Kind: "Service"}:                               once(&o.service),
		{APIVersion: "monitoring.coreos.com/v1", Kind: "ServiceMonitor"}:  once(&o.monitor),
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}:       once(&o.network),
		{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:            once(&o.budget),
		{APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule"}:  once(&o.alerts),
		{APIVersion: "v1", Kind: "ConfigMap"}:                             once(&o.dashboards),
	}
	for document := range strings.SplitSeq(strings.TrimPrefix(rendered, "---\n"), "\n---\n") {
		var kind meta.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			return o, fmt.Errorf("%w in\n%s", err, document)
		}
		decode := into[kind]
		if decode == nil {
			return o, fmt.Errorf("%v: unknown, or twice", kind)
		}
		delete(into, kind)
		if err := decode([]byte(document)); err != nil {
			return o, fmt.Errorf("%s: %w", kind.Kind, err)
		}
	}
	return o, nil
}

// once decodes into a new object with case-sensitive names, as the API server does and
// encoding/json does not.
func once[T any](to **T) func([]byte) error {
	return func(document []byte) error {
		b, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return err
		}
		*to = new(T)
		unknown, err := json.UnmarshalStrict(b, *to)
		return errors.Join(append(unknown, err)...)
	}
}

// each runs a test on the objects of every release.
func each(t *testing.T, f func(*testing.T, release, objects)) {
	for _, r := range releases {
		t.Run(r.rendered, func(t *testing.T) {
			t.Parallel()
			o, err := decode(r.render(t))
			if err != nil {
				t.Fatal(err)
			}
			f(t, r, o)
		})
	}
}

func TestObjectsHaveKnownFieldsOnly(t *testing.T) {
	got := make(map[string]int)
	for _, r := range releases {
		o, err := decode(r.render(t))
		if err != nil {
			t.Errorf("%s: %v", r.rendered, err)
		}
		for kind, exists := range map[string]bool{
			"account": o.account != nil, "role": o.role != nil, "binding": o.binding != nil, "deployment": o.deployment != nil,
			"service": o.service != nil, "monitor": o.monitor != nil, "network": o.network != nil, "budget": o.budget != nil,
		} {
			if exists {
				got[kind]++
			}
		}
	}
	want := map[string]int{"account": 3, "role": 3, "binding": 3, "deployment": 4, "service": 4, "monitor": 2, "network": 3, "budget": 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects of %d releases (-want +got):\n%s", len(releases), diff)
	}
}

func TestObjectsWithUnknownFieldsAreFound(t *testing.T) {
	rendered := everything.render(t)
	for right, wrong := range map[string]string{
		"automountServiceAccountToken: true": "automountServiceAccountTokens: true",
		"readOnlyRootFilesystem: true":       "readOnlyRootFilesystem: sure",
		"minAvailable: 1":                    "minavailable: 1",
		"honorLabels: true":                  "honourLabels: true",
		"policyTypes: [":                     "policyTypes: [], policyTypes: [",
		"verbs: [list, watch]":               "verb: [list, watch]",
		"kind: Role\n":                       "kind: ClusterRole\n",
	} {
		if !strings.Contains(rendered, right) {
			t.Fatalf("no %q", right)
		}
		if _, err := decode(strings.Replace(rendered, right, wrong, 1)); err == nil {
			t.Errorf("no error with %q instead of %q", wrong, right)
		}
	}
}

// selects reports whether a selector without expressions selects these labels.
func selects(selector, labels map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return len(selector) > 0
}

func TestObjectsSelectorsSelectThePods(t *testing.T) {
	each(t, func(t *testing.T, _ release, o objects) {
		pod := o.pod().Labels
		selectors := map[string]map[string]string{
			"Deployment": o.deployment.Spec.Selector.MatchLabels,
			"Service":    o.service.Spec.Selector,
		}
		if o.network != nil {
			selectors["NetworkPolicy"] = o.network.Spec.PodSelector.MatchLabels
		}
		if o.budget != nil {
			selectors["PodDisruptionBudget"] = o.budget.Spec.Selector.MatchLabels
		}
		for _, c := range o.pod().Spec.TopologySpreadConstraints {
			selectors["spread over "+c.TopologyKey] = c.LabelSelector.MatchLabels
		}
		for _, kind := range slices.Sorted(maps.Keys(selectors)) {
			if !selects(selectors[kind], pod) {
				t.Errorf("%s selects %v, which the pods do not have: %v", kind, selectors[kind], pod)
			}
		}
		if o.monitor != nil && !selects(o.monitor.Spec.Selector.MatchLabels, o.service.Labels) {
			t.Errorf("the ServiceMonitor selects %v, which the Service does not have: %v", o.monitor.Spec.Selector.MatchLabels, o.service.Labels)
		}
	})
}
