//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

// panelIs waits until the panel of the open worker shows that state, as of now or, if old, as of
// some time ago: in its state, its numbers, its colour, and the age of the last report, which must
// grow while the worker reports nothing.
func (b *tab) panelIs(state string, old bool) {
	b.t.Helper()
	b.says("#w-state", state)
	if !old {
		b.is("!document.querySelector('#worker').matches('.was')")
		b.is("!document.querySelector('#w-v0').innerText.includes('was')")
		return
	}
	b.says("#w-v0", "was 4,000 / 10,000 · 40 %")
	b.says("#w-hit2", "was ")
	b.is("getComputedStyle(document.querySelector('#worker')).filter === 'grayscale(1)'")
	b.says("#w-oddhead", "was odd about it")
	b.is("parseFloat(document.querySelector('#w-age').innerText) >= 3") // s: while it answers, it is polled ten times a second
}

// TestRealPageOfAWorkerSaysWhatWas where its numbers are held, lost, or stale, or it is gone.
func TestRealPageOfAWorkerSaysWhatWas(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(1), 40)
	first := s.worker("backend", nth(0), 40)
	p := s.metrics("--standby")
	p.tells(`"nats":{"on":true`)
	p.tells(fmt.Sprint(nth(0)))
	s.hit(nth(0), 100, 30)
	b := startChromium(t).newTab(t)
	b.open(p.url + fmt.Sprintf("/#w=%d", nth(0)))
	b.says("#w-hit2", "30.0 %")
	b.panelIs("answering", false)

	b.press("p")
	b.says("#live", "Paused")
	b.panelIs("was answering at", true)
	b.is("parseFloat(document.querySelector('#ago').innerText) > 3") // though snapshots come
	b.is("!/^\\d/.test(document.title)")
	b.says("#finetext", "As of ")
	b.press("p")
	b.says("#live", "Live")
	b.panelIs("answering", false)
	b.is("parseFloat(document.querySelector('#ago').innerText) < 3")

	first.leave()
	b.panelIs("gone: it was answering at", true)
	s.worker("backend", nth(0), 40)
	b.panelIs("answering", false)

	b.down(true)
	p.Kill()
	b.says("#live", "Not connected")
	b.panelIs("was answering at", true)
	b.says("#rows", " s")
	p.start()
	b.says("#live", "Live")
	b.panelIs("answering", false)
}

// TestRealPageSaysWhatIsNotConnected where no worker is seen for that: each server alone, and both.
func TestRealPageSaysWhatIsNotConnected(t *testing.T) {
	s := newStage(t)
	const noEtcd, noNATS = "http://127.0.0.1:1", "nats://127.0.0.1:2"
	c := startChromium(t)
	for _, away := range []struct {
		args     []string
		headline string
		live     string
		says     []string
	}{
		{[]string{"--etcd-endpoints", noEtcd, "--nats-server", noNATS}, "No connection", "Cut off", []string{noEtcd, noNATS, "There has been no connection yet: "}},
		{[]string{"--etcd-endpoints", noEtcd}, "No connection", "Partly cut off", []string{noEtcd, "connection refused"}},
		{[]string{"--nats-server", noNATS}, "No worker yet", "Live", []string{noNATS, "connection refused"}}, // nothing uses it, so far
		{[]string{"--nats-server", noNATS, "--etcd-endpoints", "none", "--component", "backend"}, "No connection", "Cut off", []string{noNATS, "connection refused"}},
	} {
		t.Run(strings.Join(away.args, " "), func(t *testing.T) {
			p := s.metrics(away.args...)
			b := c.newTab(t)
			b.open(p.url + "/")
			b.says("#empty h2", away.headline)
			b.says("#empty", away.says...)
			b.says("#live", away.live)
			b.is("document.querySelector('#live').dataset.is === 'live' || getComputedStyle(document.querySelector('#live i'), '::after').content === 'none'")
			b.is("!document.querySelector('#empty').innerText.includes('mock')")
			b.size(390, 900)
			b.is("[...document.querySelectorAll('#empty .away')].every(p => p.getBoundingClientRect().right <= 390 && p.getBoundingClientRect().left >= 0)")
		})
	}
}

// TestRealPageSaysThatTheProgramIsCutOff once it was connected, and when it is again.
func TestRealPageSaysThatTheProgramIsCutOff(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	b := s.open("")
	b.says("#live", "Live")
	s.StopNATS()
	b.says("#live", "Partly cut off")
	b.says("#conns", "nats lost")
	b.says("#serious", "NATS is not connected", "connection refused")
	s.StartNATS(t)
	b.says("#live", "Live")
}
