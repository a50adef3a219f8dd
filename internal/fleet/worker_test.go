package fleet

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestTargetCoversExactNames(t *testing.T) {
	for _, c := range []struct {
		target   Target
		endpoint Endpoint
		want     bool
	}{
		{everything, generate, true},
		{everything, prefill, true},
		{backend, generate, true},
		{backend, prefill, false},
		{backend, Endpoint{Component: "backend2", Name: "generate"}, false},
		{Target(generate), generate, true},
		{Target(generate), generate2, false},
		{Target(generate), prefill, false},
		{Target(generate2), generate, false},
		{Target(generate), Endpoint{Component: "Backend", Name: "generate"}, false},
	} {
		testutil.Equal(t, Endpoint(c.target).String()+" covers "+c.endpoint.String(), c.target.Covers(c.endpoint), c.want)
	}
}

func TestWorkerIDFormats(t *testing.T) {
	for _, c := range []struct {
		id           WorkerID
		decimal, hex string
		static       bool
	}{
		{lease(9041998838276177456), "9041998838276177456", "7d7ba2096ef23e30", false},
		{lease(1<<53 + 1), "9007199254740993", "20000000000001", false},
		{lease(1<<64 - 1), "18446744073709551615", "ffffffffffffffff", false},
		{lease(0), "0", "0", false},
		{static("CsgAmtqLwkJxQTmEo2KmbD"), "CsgAmtqLwkJxQTmEo2KmbD", "", true},
	} {
		testutil.Equal(t, "label", c.id.String(), c.decimal)
		testutil.Equal(t, "hex", c.id.Hex(), c.hex)
		testutil.Equal(t, "static", c.id.IsStatic(), c.static)
	}
}
