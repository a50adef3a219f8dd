//go:build real

package browser

import (
	"fmt"
	"testing"
)

// The design gives a snapshot of 1,000 workers 16 ms of script. How long that is depends
// on the machine, so the page is held against what it cannot do without: parsing the
// same bytes, again and again, of which it takes about ten times as long.
const (
	measuredSnapshots = 15 // snapshots
	maxParseRatio     = 25 // as long as JSON.parse
)

func TestWebPageCPUTimeOfThousandWorkers(t *testing.T) {
	s := newEnvironment(t)
	s.startMocks("--workers", "1000", "--correlated", "--release", "0.2.1", "--event-interval", "5")
	p := s.startMetrics("--poll-interval", "2")
	b := startChromium(t).newTab(t)
	b.countSnapshots()
	b.open(p.url + "/")
	b.waitForText("#n-workers", "1,000")
	b.waitFor("seen > 5") // the code is warm

	one := b.cpuTimePerSnapshot(measuredSnapshots)
	// In a task of the page's: what is evaluated from outside does not count as script.
	before := b.cpuTime()
	must(t, b.eval(fmt.Sprintf("new Promise(done => setTimeout(() => { for (let i = 0; i < %d; i++) globalThis.parsed = JSON.parse(latest); done() }))", measuredSnapshots), nil))
	parse := (b.cpuTime().script - before.script) / measuredSnapshots
	var size int
	must(t, b.eval("latest.length", &size))
	t.Logf("a snapshot of 1,000 workers (%d KB): %.1f ms of script, of which parsing it would take %.1f; style and layout %.1f ms, main thread in all %.1f ms",
		size/1000, one.script, parse, one.layout, one.total)
	if one.script > maxParseRatio*parse {
		t.Errorf("a snapshot takes %.1f ms of script, %.1f times as long as parsing it; want at most %d times", one.script, one.script/parse, maxParseRatio)
	}
	// What moves is the compositor's business: painting sixty times a second is dear.
	b.setMedia("light", "no-preference")
	if withMotion := b.cpuTimePerSnapshot(measuredSnapshots); withMotion.total > 2*one.total {
		t.Errorf("a snapshot takes %.1f ms of the main thread, and %.1f ms without motion; want less than twice as much", withMotion.total, one.total)
	}
}

// spent is the time that the page's thread has worked, in milliseconds.
type cpuTime struct{ script, layout, total float64 }

func (b *tab) cpuTime() (s cpuTime) {
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
			s.total = m.Value * 1000
		}
	}
	return s
}

// each is what one of the next n snapshots takes.
func (b *tab) cpuTimePerSnapshot(n int) cpuTime {
	b.t.Helper()
	before := b.cpuTime()
	b.waitForSnapshots(n)
	after, of := b.cpuTime(), float64(n)
	return cpuTime{(after.script - before.script) / of, (after.layout - before.layout) / of, (after.total - before.total) / of}
}
