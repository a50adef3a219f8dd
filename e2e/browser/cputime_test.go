//go:build real

package browser

import (
	"fmt"
	"testing"
)

// The design allows 16 ms of script for a snapshot of 1,000 workers. How long that is depends
// on the machine, so the limit is a multiple of the time that parsing the same bytes as JSON
// takes, which the page cannot avoid. The page takes about ten times as long.
const (
	measuredSnapshots = 15 // snapshots
	maxParseRatio     = 25 // as long as JSON.parse
)

func TestWebPageCPUTimeOfThousandWorkers(t *testing.T) {
	env := newEnvironment(t)
	env.startMocks("--workers", "1000", "--correlated", "--release", "0.2.1", "--event-interval", "5")
	p := env.startMetrics("--poll-interval", "2")
	b := startChromium(t).newTab(t)
	b.countSnapshots()
	b.open(p.url + "/")
	b.waitForText("#n-workers", "1,000")
	b.waitFor("seen > 5") // by then the script has been compiled

	one := b.cpuTimePerSnapshot(measuredSnapshots)
	// A task of the page itself runs it: code that the debugger evaluates does not count as script.
	before := b.cpuTime()
	must(t, b.eval(fmt.Sprintf("new Promise(done => setTimeout(() => { for (let i = 0; i < %d; i++) globalThis.parsed = JSON.parse(latest); done() }))", measuredSnapshots), nil))
	parse := (b.cpuTime().script - before.script) / measuredSnapshots
	var size int
	must(t, b.eval("latest.length", &size))
	t.Logf("a snapshot of 1,000 workers (%d KB): %.1f ms of script, of which JSON.parse would take %.1f ms; style and layout %.1f ms, main thread %.1f ms in total",
		size/1000, one.script, parse, one.layout, one.total)
	if one.script > maxParseRatio*parse {
		t.Errorf("a snapshot takes %.1f ms of script, %.1f times the time of JSON.parse; want at most %d times", one.script, one.script/parse, maxParseRatio)
	}
	// Animations must run in the compositor: painting 60 times a second costs too much.
	b.setMedia("light", "no-preference")
	if withMotion := b.cpuTimePerSnapshot(measuredSnapshots); withMotion.total > 2*one.total {
		t.Errorf("a snapshot takes %.1f ms of the main thread, and %.1f ms without motion; want at most twice as much", withMotion.total, one.total)
	}
}

// cpuTime is the CPU time that the page's main thread has used, in milliseconds.
type cpuTime struct{ script, layout, total float64 }

// cpuTime returns the CPU time since the page was opened.
func (b *tab) cpuTime() (used cpuTime) {
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
			used.script = m.Value * 1000
		case "LayoutDuration", "RecalcStyleDuration":
			used.layout += m.Value * 1000
		case "TaskDuration":
			used.total = m.Value * 1000
		}
	}
	return used
}

// cpuTimePerSnapshot returns the mean CPU time of the next n snapshots.
func (b *tab) cpuTimePerSnapshot(n int) cpuTime {
	b.t.Helper()
	before := b.cpuTime()
	b.waitForSnapshots(n)
	after, count := b.cpuTime(), float64(n)
	return cpuTime{(after.script - before.script) / count, (after.layout - before.layout) / count, (after.total - before.total) / count}
}
