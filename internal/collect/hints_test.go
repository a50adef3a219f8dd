package collect

import (
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

func TestHintNamesWhatIsRegisteredAndTheNearest(t *testing.T) {
	registered := []fleet.Endpoint{
		{Component: "MyComponent", Name: "my_endpoint"},
		{Component: "backend", Name: "generate"},
		{Component: "backend", Name: "load_metrics"},
	}
	const all = "Registered in namespace dynamo: MyComponent/my_endpoint, backend/generate, backend/load_metrics"
	for _, c := range []struct {
		target     fleet.Target
		registered []fleet.Endpoint
		want       string
	}{
		{fleet.Target{Component: "my_component", Name: "my_endpoint"}, registered, all + "; did you mean --component MyComponent --endpoint my_endpoint?"},
		{fleet.Target{Component: "my_component"}, registered, all + "; did you mean --component MyComponent?"},
		{fleet.Target{Component: "backend", Name: "load-metrics"}, registered, all + "; did you mean --component backend --endpoint load_metrics?"},
		{fleet.Target{Component: "bakend", Name: "generate"}, registered, all + "; did you mean --component backend --endpoint generate?"},
		{fleet.Target{Component: "prefill", Name: "generate"}, registered, all},
		{fleet.Target{Component: "backend", Name: "clear"}, registered, all},
		{fleet.Target{}, nil, "Nothing is registered in namespace dynamo yet: are the workers up, and is --namespace theirs?"},
	} {
		for _, namespaces := range []wire.Namespaces{"dynamo", "dyn*", "*"} {
			want := strings.Replace(c.want, "namespace dynamo", "namespace "+string(namespaces), 1)
			if got := hint(namespaces, c.target, c.registered); got != want {
				t.Errorf("%v:\n got %s\nwant %s", c.target, got, want)
			}
		}
	}
}

func TestHintListsNoMoreThanALineHolds(t *testing.T) {
	var many []fleet.Endpoint
	want := "Registered in namespace dynamo: "
	for i := range 100 {
		e := fleet.Endpoint{Component: "c", Name: string(rune('!' + i%90))}
		many = append(many, e)
		if i < 20 {
			want += e.String() + ", "
		}
	}
	if got := hint("dynamo", fleet.Target{Component: "x"}, many); got != want+"…" {
		t.Errorf("got %s\nwant %s", got, want+"…")
	}
}
