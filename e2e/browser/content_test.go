//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

func TestWebPageGroupTitlesFollowTheColour(t *testing.T) {
	s := newEnvironment(t)
	for n := range 4 {
		s.startWorker("backend", workerID(n), 20).setSlots(20, 16+8*n, 0) // of 64
		s.publishHit(workerID(n), 100, 30)
	}
	s.startWorker("prefill", workerID(9), 80)
	b := s.openPage("")
	b.waitForText("#n-workers", "5")
	b.waitForText("#groups", "backend/generate 4 workers · mean KV use 20 % ± 0", "prefill/generate 1 worker · mean KV use 80 % ± 0")
	b.waitForText("#legend", "KV use 0 %")
	b.selectOption("#f-by", "slots")
	b.waitForText("#groups", "backend/generate 4 workers · mean slots 44 % ± 14", "prefill/generate 1 worker · mean slots 80 % ± 0")
	b.waitForText("#legend", "slots in use 0 %")
	b.waitFor("!document.querySelector('#groups').innerText.includes('KV')")
	for n := range 4 {
		s.publishHit(workerID(n), 100, 30)
	}
	b.selectOption("#f-by", "hit")
	b.waitForText("#groups", "backend/generate 4 workers · hit rate 30 %")
	b.waitForText("#legend", "hit rate 0 %")
	b.waitFor("!document.querySelector('#groups').innerText.includes('mean')")
	for _, group := range []string{"state", "none", "source"} { // no group is a whole endpoint
		b.selectOption("#f-group", group)
		b.waitFor("!/mean|hit rate/.test(document.querySelector('#groups').innerText)")
	}
}

// heard has the pages that are opened from now on keep whatever their live regions say.
func (b *tab) recordAnnouncements() {
	b.t.Helper()
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		globalThis.said = []
		addEventListener('DOMContentLoaded', () => {
			const live = '[role=status], [role=alert], [role=log], [role=timer], [aria-live]:not([aria-live=off]), output'
			new MutationObserver(all => {
				for (const m of all) {
					const region = (m.target.closest ? m.target : m.target.parentElement)?.closest(live)
					if (region?.textContent.trim()) said.push(region.textContent.trim())
				}
			}).observe(document.body, {subtree: true, childList: true, characterData: true})
		})`}, nil)
}

func TestWebPageAnnouncesChangesOnly(t *testing.T) {
	s := newEnvironment(t)
	for n := range 10 {
		s.startWorker("backend", workerID(n), 40)
	}
	full := s.startWorker("backend", workerID(20), 95)
	malformed := s.startWorker("backend", workerID(21), 40)
	malformed.answerMalformed()
	p := s.startMetrics("--standby")
	p.waitForFleet("imbalance:backend/generate") // its title has a number
	b := startChromium(t).newTab(t)
	b.countSnapshots()
	b.recordAnnouncements()
	// That a problem comes or goes is a change: some are raised only after a minute.
	said := func() (all []string) {
		must(t, b.eval("said.filter(s => !/new problem|Solved/.test(s))", &all))
		return all
	}
	b.open(p.url + "/#problem=imbalance:backend/generate")
	b.waitForText("#shown", "of 12 workers shown: ", "uneven: 2.1")
	b.run("document.querySelector('#map').focus()")
	b.waitForSnapshots(2)
	before := len(said())
	for n := range 8 { // the numbers change, and nothing else
		full.setLoad(94-n, 0)
		b.waitForSnapshots(1)
	}
	if more := said()[before:]; len(more) > 0 {
		t.Errorf("while nothing but numbers changed it said %q", more)
	}
	b.pressKeys("p")
	b.waitFor("said.some(s => s.includes('Paused.'))")
	before = len(said())
	b.waitForSnapshots(4)
	if more := said()[before:]; len(more) > 0 {
		t.Errorf("while paused it said %q", more)
	}
	b.pressKeys("p")
	b.waitFor("said.some(s => s.includes('Live.'))")
	b.run("location.hash = 'state=malformed'")
	b.waitFor("said.at(-1).includes('1 of 12 workers shown.')")

	before = len(said())
	b.expectOutage(true)
	p.Kill()
	b.waitForText("#banner", "Connection lost", "s ago")
	b.waitFor("said.some(s => s.includes('Connection lost.'))")
	b.waitFor("parseFloat(document.querySelector('#ago').innerText) > 4") // many ticks of the clock
	if more := said()[before:]; len(more) != 1 {
		t.Errorf("when the connection was lost it said %q, want one thing", more)
	}
	p.start()
	b.waitForText("#live", "Live")
	b.waitFor("said.some(s => s.includes('Connected again.'))")
	for _, one := range said() {
		if strings.Contains(one, " ago") {
			t.Errorf("it said %q, which is old a moment later", one)
		}
	}
}

// What a sentence says of a worker must not differ from the numbers beside it for longer
// than it takes to ask: it is asked for with each snapshot, unless an answer is on its way.
func TestWebPageFetchesAnomaliesWithEachSnapshot(t *testing.T) {
	s := newEnvironment(t)
	for n := range 10 {
		s.startWorker("backend", workerID(n), 40)
	}
	p := s.startMetrics()
	b := startChromium(t).newTab(t)
	b.countSnapshots()
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		globalThis.missed = 0
		const {fetch: real, EventSource: Counting} = globalThis
		let asked = 0, flying = 0, before
		fetch = async (...args) => {
			if (!String(args[0]).includes('worker?')) return real(...args)
			asked++
			flying++
			const answer = await real(...args)
			if (!answer.ok) flying--
			// The page has what it asked for before any other message can come: between this and
			// its own code there are promises alone.
			return {ok: answer.ok, json: () => answer.json().finally(() => flying--)}
		}
		EventSource = class extends Counting {
			constructor(...args) {
				super(...args)
				this.addEventListener('message', () => {
					if (before?.asked === asked && !before.flying) missed++
					before = {asked, flying}
				})
			}
		}`}, nil)
	b.open(fmt.Sprintf("%s/#w=%d", p.url, workerID(20)))
	b.waitForSnapshots(2)
	odd := s.startWorker("backend", workerID(20), 95)
	b.waitForText("#w-anomalies", "KV use 95 %")
	must(t, b.eval("missed = 0", nil)) // with the snapshots from before it came there was nothing to ask
	b.waitForSnapshots(7)              // longer than one step of the history
	odd.setLoad(40, 0)
	b.waitForText("#w-v0", "40 %")
	b.waitForText("#w-anomalies-title", "No anomalies")
	var missed int
	must(t, b.eval("missed", &missed))
	if missed > 0 {
		t.Errorf("with %d snapshots it asked for nothing", missed)
	}
}

// A worker that has just come has numbers and no history of them yet.
func TestWebPageWorkerWithoutHistory(t *testing.T) {
	s := newEnvironment(t)
	s.startWorker("backend", workerID(0), 40)
	p := s.startMetrics()
	b := startChromium(t).newTab(t)
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		const real = fetch
		fetch = async (...args) => {
			const answer = await real(...args)
			if (!String(args[0]).includes('worker?')) return answer
			const past = await answer.json()
			for (const k of ['kv', 'slots', 'waiting', 'hitRate']) past[k].fill(null)
			return new Response(JSON.stringify(past))
		}`}, nil)
	b.open(fmt.Sprintf("%s/#w=%d", p.url, workerID(0)))
	b.waitForText("#w-v1", "25 / 64")
	b.waitForText("#w-p0", "No history yet.")
	b.waitForText("#w-p1", "No history yet.")
	b.waitForText("#w-v3", "–")
	b.waitForText("#w-p3", "Not reported.")
}
