package kube

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// readiness is the resource that shows which workers are ready: pods in container mode, and
// otherwise EndpointSlices.
var readiness = map[string]string{"container": "pods", "": "endpointslices"}

// SECURITY.md has the rules of both modes. Another test checks that the program needs
// exactly these.
func TestRoleHasExactlyTheDocumentedRules(t *testing.T) {
	_, block, _ := strings.Cut(read(t, root+"/SECURITY.md"), "```yaml\nrules:")
	block, _, _ = strings.Cut(block, "```")
	var all rbac.Role
	if err := yaml.UnmarshalStrict([]byte("rules:"+block), &all); err != nil {
		t.Fatal(err)
	}
	want := []string{"dynamoworkermetadatas", "endpointslices", "pods", "leases", "leases"}
	if got := resources(all.Rules); !slices.Equal(got, want) {
		t.Fatalf("SECURITY.md has rules for %q, want %q", got, want)
	}
	each(t, func(t *testing.T, r release, o objects) {
		if o.role == nil { // rbac.create is false
			return
		}
		asked := readiness[o.env()["DYN_KUBE_DISCOVERY_MODE"]]
		want := slices.DeleteFunc(slices.Clone(all.Rules), func(rule rbac.PolicyRule) bool {
			name := rule.Resources[0]
			return name != asked && slices.Contains(slices.Collect(maps.Values(readiness)), name)
		})
		// The name of the Lease depends on --namespace.
		key := sha256.Sum256([]byte(o.flags()["--namespace"] + "/components/metrics/instance"))
		want[len(want)-1].ResourceNames = []string{fmt.Sprintf("dynamo-metrics-%x", key[:8])}
		if diff := cmp.Diff(want, o.role.Rules); diff != "" {
			t.Errorf("rules (-SECURITY.md +chart):\n%s", diff)
		}
	})
}

// resources returns the resources of the rules, each of which has one.
func resources(rules []rbac.PolicyRule) (all []string) {
	for _, rule := range rules {
		all = append(all, strings.Join(rule.Resources, "+"))
	}
	return all
}

func TestRoleIsBoundToThePodsInTheWatchedNamespace(t *testing.T) {
	each(t, func(t *testing.T, r release, o objects) {
		spec := o.pod().Spec
		if o.deployment.Namespace != r.namespace {
			t.Errorf("the pods are in %s, want %s", o.deployment.Namespace, r.namespace)
		}
		if token := spec.AutomountServiceAccountToken; token == nil || !*token {
			t.Error("the pods have no token")
		}
		if o.role == nil { // rbac.create is false, and so is serviceAccount.create
			if spec.ServiceAccountName != "default" {
				t.Errorf("the pods run as %s, which the chart does not create", spec.ServiceAccountName)
			}
			return
		}
		if token := o.account.AutomountServiceAccountToken; token == nil || *token {
			t.Error("every pod of the account gets its token")
		}
		if o.account.Name != spec.ServiceAccountName || o.account.Namespace != r.namespace {
			t.Errorf("the pods run as %s in %s, the account is %s in %s", spec.ServiceAccountName, r.namespace, o.account.Name, o.account.Namespace)
		}
		watched := o.flags()["--kubernetes-namespace"]
		for kind, namespace := range map[string]string{"Role": o.role.Namespace, "RoleBinding": o.binding.Namespace} {
			if namespace != watched {
				t.Errorf("the %s is in %s, but %s is watched", kind, namespace, watched)
			}
		}
		if want := (rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: o.role.Name}); o.binding.RoleRef != want {
			t.Errorf("bound is %v, want %v", o.binding.RoleRef, want)
		}
		want := []rbac.Subject{{Kind: "ServiceAccount", Name: o.account.Name, Namespace: o.account.Namespace}}
		if diff := cmp.Diff(want, o.binding.Subjects); diff != "" {
			t.Errorf("bound to (-want +got):\n%s", diff)
		}
	})
}
