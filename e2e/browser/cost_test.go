//go:build real

package browser

import (
	"fmt"
	"testing"
)

// The design gives a snapshot of 1,000 workers 16 ms of script. How long that is depends
// on the machine, so the page is held against what it cannot do without: parsing the
// same bytes, which was a third of what it took when it was designed.
const (
	watched   = 20 // snapshots
	mostTimes = 15 // as long as JSON.parse
)

func TestRealPageOfAThousandWorkersCostsLittle(t *testing.T) {
	s := newStage(t)
	s.mocks("--workers", "1000", "--correlated", "--release", "0.2.1", "--event-interval", "5")
	p := s.metrics("--poll-interval", "2")
	b := startChromium(t).newTab(t)
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		globalThis.seen = 0
		const Real = EventSource
		EventSource = class extends Real {
			constructor(...args) { super(...args); this.addEventListener('message', e => { seen++; globalThis.latest = e.data }) }
		}`}, nil)
	b.open(p.url + "/")
	b.says("#n-workers", "1,000")
	b.is("seen > 5") // the code is warm

	var from, size int
	must(t, b.try("seen", &from))
	before := b.spent()
	b.is(fmt.Sprintf("seen >= %d", from+watched))
	after := b.spent()
	must(t, b.try("latest.length", &size))
	// In a task of the page's: what is evaluated from outside does not count as script.
	must(t, b.try(fmt.Sprintf("new Promise(done => setTimeout(() => { for (let i = 0; i < %d; i++) globalThis.parsed = JSON.parse(latest); done() }))", watched), nil))
	parse := (b.spent().script - after.script) / watched
	script := (after.script - before.script) / watched
	t.Logf("a snapshot of 1,000 workers (%d KB): %.1f ms of script, of which parsing it would take %.1f; style and layout %.1f ms, main thread in all %.1f ms",
		size/1000, script, parse, (after.layout-before.layout)/watched, (after.all-before.all)/watched)
	if script > mostTimes*parse {
		t.Errorf("a snapshot takes %.1f ms of script, %.1f times as long as parsing it; want at most %d times", script, script/parse, mostTimes)
	}
}

// spent is the time that the page's thread has worked, in milliseconds.
type spent struct{ script, layout, all float64 }

func (b *tab) spent() (s spent) {
	b.t.Helper()
	var answer struct {
		Metrics []struct {
			Name  string
			Value float64
		}
	}
	b.call("Performance.getMetrics", object{}, &answer)
	for _, m := range answer.Metrics {
		switch m.Name {
		case "ScriptDuration":
			s.script = m.Value * 1000
		case "LayoutDuration", "RecalcStyleDuration":
			s.layout += m.Value * 1000
		case "TaskDuration":
			s.all = m.Value * 1000
		}
	}
	return s
}
