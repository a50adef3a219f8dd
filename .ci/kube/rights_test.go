package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	rbac "k8s.io/api/rbac/v1"
)

// TestTheRoleHasExactlyTheRightsOfAReader compares with what the program asks for: the
// registrations, the readiness of pods (of their containers only in container mode), and
// the Lease of the unique instance.
func TestTheRoleHasExactlyTheRightsOfAReader(t *testing.T) {
	each(t, func(t *testing.T, r release, o objects) {
		if o.role == nil { // rbac.create is false
			return
		}
		rule := func(group, resource string, verbs ...string) rbac.PolicyRule {
			return rbac.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
		}
		want := []rbac.PolicyRule{
			rule("nvidia.com", "dynamoworkermetadatas", "list", "watch"),
			rule("discovery.k8s.io", "endpointslices", "list", "watch"),
		}
		if o.env()["DYN_KUBE_DISCOVERY_MODE"] == "container" {
			want = append(want, rule("", "pods", "list", "watch"))
		}
		want = append(want, rule("coordination.k8s.io", "leases", "create", "get", "update"))
		if diff := cmp.Diff(want, o.role.Rules); diff != "" {
			t.Errorf("rules (-want +got):\n%s", diff)
		}
	})
}

func TestTheRightsAreThePodsAndInTheNamespaceThatIsWatched(t *testing.T) {
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
				t.Errorf("the pods run as %s, which nobody makes", spec.ServiceAccountName)
			}
			return
		}
		if token := o.account.AutomountServiceAccountToken; token == nil || *token {
			t.Error("whoever runs under the account has its token")
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
