//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

func TestWebPageGroupTitlesFollowTheColour(t *testing.T) {
	env := newEnvironment(t)
	for n := range 4 {
		env.startWorker("backend", workerID(n), 20).setSlots(20, 16+8*n, 0) // of 64
		env.publishHit(workerID(n), 100, 30)
	}
	env.startWorker("prefill", workerID(9), 80)
	b := env.openPage("")
	b.waitForText("#n-workers", "5")
	b.waitForText("#groups", "backend/generate 4 workers · mean KV use 20 % ± 0", "prefill/generate 1 worker · mean KV use 80 % ± 0")
	b.waitForText("#legend", "KV use 0 %")
	b.selectOption("#f-by", "slots")
	b.waitForText("#groups", "backend/generate 4 workers · mean slots 44 % ± 14", "prefill/generate 1 worker · mean slots 80 % ± 0")
	b.waitForText("#legend", "slots in use 0 %")
	b.waitFor("!document.querySelector('#groups').innerText.includes('KV')")
	for n := range 4 {
		env.publishHit(workerID(n), 100, 30)
	}
	b.selectOption("#f-by", "hit")
	b.waitForText("#groups", "backend/generate 4 workers · hit rate 30 %")
	b.waitForText("#legend", "hit rate 0 %")
	b.waitFor("!document.querySelector('#groups').innerText.includes('mean')")
	for _, group := range []string{"state", "none", "source"} { // none of these groups is a whole endpoint
		b.selectOption("#f-group", group)
		b.waitFor("!/mean|hit rate/.test(document.querySelector('#groups').innerText)")
	}
}

// recordAnnouncements makes the pages that are opened from now on record the texts of their live regions, in announced.
func (b *tab) recordAnnouncements() {
	b.t.Helper()
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		globalThis.announced = []
		addEventListener('DOMContentLoaded', () => {
			const live = '[role=status], [role=alert], [role=log], [role=timer], [aria-live]:not([aria-live=off]), output'
			new MutationObserver(all => {
				for (const m of all) {
					const region = (m.target.closest ? m.target : m.target.parentElement)?.closest(live)
					if (region?.textContent.trim()) announced.push(region.textContent.trim())
				}
			}).observe(document.body, {subtree: true, childList: true, characterData: true})
		})`}, nil)
}

func TestWebPageAnnouncesChangesOnly(t *testing.T) {
	env := newEnvironment(t)
	for n := range 10 {
		env.startWorker("backend", workerID(n), 40)
	}
	full := env.startWorker("backend", workerID(20), 95)
	malformed := env.startWorker("backend", workerID(21), 40)
	malformed.answerMalformed()
	p := env.startMetrics("--standby")
	p.waitForFleet("imbalance:backend/generate") // its title contains a number that changes
	b := startChromium(t).newTab(t)
	b.countSnapshots()
	b.recordAnnouncements()
	// New and solved problems are changes, too. They are left out, because some are raised only after a minute.
	announcements := func() (all []string) {
		must(t, b.eval("announced.filter(s => !/new problem|Withdrawn/.test(s))", &all))
		return all
	}
	b.open(p.url + "/#problem=imbalance:backend/generate")
	b.waitForText("#shown", "of 12 workers shown: ", "uneven: the fullest worker has 2.1")
	b.run("document.querySelector('#map').focus()")
	b.waitForSnapshots(2)
	before := len(announcements())
	for n := range 8 { // only numbers change
		full.setLoad(94-n, 0)
		b.waitForSnapshots(1)
	}
	if more := announcements()[before:]; len(more) > 0 {
		t.Errorf("the page announced %q, want nothing while only numbers change", more)
	}
	b.pressKeys("p")
	b.waitFor("announced.some(s => s.includes('Paused.'))")
	before = len(announcements())
	b.waitForSnapshots(4)
	if more := announcements()[before:]; len(more) > 0 {
		t.Errorf("the page announced %q, want nothing while paused", more)
	}
	b.pressKeys("p")
	b.waitFor("announced.some(s => s.includes('Live.'))")
	b.run("location.hash = 'state=malformed'")
	b.waitFor("announced.at(-1).includes('1 of 12 workers shown.')")

	before = len(announcements())
	b.expectOutage(true)
	p.Kill()
	b.waitForText("#banner", "Connection lost", "s ago")
	b.waitFor("announced.some(s => s.includes('Connection lost.'))")
	b.waitFor("parseFloat(document.querySelector('#ago').innerText) > 4") // the page's clock has ticked often
	if more := announcements()[before:]; len(more) != 1 {
		t.Errorf("the page announced %q when the connection was lost, want one announcement", more)
	}
	p.start()
	b.waitForText("#live", "Live")
	b.waitFor("announced.some(s => s.includes('Connected again.'))")
	for _, text := range announcements() {
		if strings.Contains(text, " ago") {
			t.Errorf("the page announced %q, want no time, which changes each second", text)
		}
	}
}

// The sentences about a worker's anomalies must agree with the numbers beside them. So the page
// requests them with each snapshot, unless a request is in flight.
func TestWebPageFetchesAnomaliesWithEachSnapshot(t *testing.T) {
	env := newEnvironment(t)
	for n := range 10 {
		env.startWorker("backend", workerID(n), 40)
	}
	p := env.startMetrics()
	b := startChromium(t).newTab(t)
	b.countSnapshots()
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		globalThis.missed = 0
		const {fetch: real, EventSource: Counting} = globalThis
		let requests = 0, inFlight = 0, before
		fetch = async (...args) => {
			if (!String(args[0]).includes('worker?')) return real(...args)
			requests++
			inFlight++
			const answer = await real(...args)
			if (!answer.ok) inFlight--
			// The page's code gets the answer before any other message can arrive: only promises
			// are resolved in between.
			return {ok: answer.ok, json: () => answer.json().finally(() => inFlight--)}
		}
		EventSource = class extends Counting {
			constructor(...args) {
				super(...args)
				this.addEventListener('message', () => {
					if (before?.requests === requests && !before.inFlight) missed++
					before = {requests, inFlight}
				})
			}
		}`}, nil)
	b.open(fmt.Sprintf("%s/#w=%d", p.url, workerID(20)))
	b.waitForSnapshots(2)
	full := env.startWorker("backend", workerID(20), 95)
	b.waitForText("#w-anomalies", "KV use 95 %")
	must(t, b.eval("missed = 0", nil)) // before the worker joined there was nothing to request
	b.waitForSnapshots(7)              // that takes longer than one step of the history
	full.setLoad(40, 0)
	b.waitForText("#w-v0", "40 %")
	b.waitForText("#w-anomalies-title", "No anomalies")
	var missed int
	must(t, b.eval("missed", &missed))
	if missed > 0 {
		t.Errorf("the page requested no anomalies with %d snapshots, want a request with each", missed)
	}
}

// A worker that has just joined has numbers, but no history yet. The page must not say that they are not reported.
func TestWebPageWorkerWithoutHistory(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics()
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
