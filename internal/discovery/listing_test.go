package discovery

import (
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// TestKeysOfAnyLengthArePassedOver, even one that fits into no page.
func TestKeysOfAnyLengthArePassedOver(t *testing.T) {
	t.Parallel()
	r := roomyFor(t, 40<<20)
	r.register(wire.LayoutV1, worker(1))
	for i, length := range []int{5 << 10, 5 << 20, 24 << 20} {
		r.put(fmt.Sprintf("v1/instances/dynamo/%c", 'x'+rune(i))+strings.Repeat("y", length), "{}")
	}
	r.put("v1/instances/dynamo/zzz/generate/2", "garbage") // behind them
	run(t, r.Watch)
	r.has(1, func(uint64) bool { return true })
	devstacktest.Until(t, func() error {
		tally := &r.Fleet.Tally
		if name, json := tally.Rejected(fleet.Instances, fleet.BadName), tally.Rejected(fleet.Instances, fleet.BadJSON); name+json < 2 || json != 1 {
			return fmt.Errorf("%d rejected for their names, %d for what they say", name, json)
		}
		return up(r.Etcd)
	})
}
