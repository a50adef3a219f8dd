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
	watched   = 15 // snapshots
	mostTimes = 25 // as long as JSON.parse
)

func TestRealPageOfAThousandWorkersCostsLittle(t *testing.T) {
	s := newStage(t)
	s.mocks("--workers", "1000", "--correlated", "--release", "0.2.1", "--event-interval", "5")
	p := s.metrics("--poll-interval", "2")
	b := startChromium(t).newTab(t)
	b.counts()
	b.open(p.url + "/")
	b.says("#n-workers", "1,000")
	b.is("seen > 5") // the code is warm

	one := b.each(watched)
	// In a task of the page's: what is evaluated from outside does not count as script.
	before := b.spent()
	must(t, b.try(fmt.Sprintf("new Promise(done => setTimeout(() => { for (let i = 0; i < %d; i++) globalThis.parsed = JSON.parse(latest); done() }))", watched), nil))
	parse := (b.spent().script - before.script) / watched
	var size int
	must(t, b.try("latest.length", &size))
	t.Logf("a snapshot of 1,000 workers (%d KB): %.1f ms of script, of which parsing it would take %.1f; style and layout %.1f ms, main thread in all %.1f ms",
		size/1000, one.script, parse, one.layout, one.all)
	if one.script > mostTimes*parse {
		t.Errorf("a snapshot takes %.1f ms of script, %.1f times as long as parsing it; want at most %d times", one.script, one.script/parse, mostTimes)
	}
	// What moves is the compositor's business: painting sixty times a second is dear.
	b.prefers("light", "no-preference")
	if moving := b.each(watched); moving.all > 2*one.all {
		t.Errorf("a snapshot takes %.1f ms of the main thread, and %.1f ms without motion; want less than twice as much", moving.all, one.all)
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

// each is what one of the next n snapshots takes.
func (b *tab) each(n int) spent {
	b.t.Helper()
	before := b.spent()
	b.more(n)
	after, of := b.spent(), float64(n)
	return spent{(after.script - before.script) / of, (after.layout - before.layout) / of, (after.all - before.all) / of}
}
