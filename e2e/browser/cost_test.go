//go:build real

package browser

import (
	"strconv"
	"testing"
)

// The design gives a snapshot of 1,000 workers 16 ms of script. How long that is depends
// on the machine, so the page is held against what it cannot do without: parsing the
// same bytes, which takes a third of what it took when it was designed.
const (
	watched   = 20 // snapshots
	mostTimes = 8  // as long as JSON.parse
)

func TestRealPageOfAThousandWorkersCostsLittle(t *testing.T) {
	s := newStage(t)
	s.mocks("--workers", "1000", "--correlated", "--release", "0.2.1", "--event-interval", "5")
	b := startChromium(t).newTab(t)
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		seen = 0
		const Real = EventSource
		EventSource = class extends Real {
			constructor(...args) { super(...args); this.addEventListener('message', e => { seen++; latest = e.data }) }
		}`}, nil)
	b.open(s.metrics("--poll-interval", "2").url + "/")
	b.says("#n-workers", "1,000")
	b.is("seen > 5") // the code is warm

	var from int
	must(t, b.try("seen", &from))
	script, task := b.metric("ScriptDuration"), b.metric("TaskDuration")
	b.is("seen >= " + strconv.Itoa(from+watched))
	script, task = (b.metric("ScriptDuration")-script)*1000/watched, (b.metric("TaskDuration")-task)*1000/watched

	parse := b.metric("ScriptDuration")
	b.do("(() => { for (let i = 0; i < " + strconv.Itoa(watched) + "; i++) JSON.parse(latest) })()")
	parse = (b.metric("ScriptDuration") - parse) * 1000 / watched
	var size int
	must(t, b.try("latest.length", &size))
	t.Logf("a snapshot of 1,000 workers, %d KB: %.1f ms of script, %.1f ms of the main thread in all; JSON.parse alone %.1f ms", size/1000, script, task, parse)
	if script > mostTimes*parse {
		t.Errorf("a snapshot takes %.1f ms of script, %.1f times as long as parsing it; want at most %d times", script, script/parse, mostTimes)
	}
}
