//go:build real

package browser

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestWebPageReconnectsAfterRestart(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics("--standby") // the etcd key of a killed instance remains for ten seconds
	b := startChromium(t).newTab(t)
	b.open(p.url + "/")
	b.waitForText("#live", "Live")
	b.waitForText("#n-workers", "1")
	b.expectOutage(true)
	p.Kill()
	b.waitForText("#banner", "Connection lost.", "Everything below is as it was at", "Trying again")
	b.waitForText("#live", "Not connected")
	b.waitForText("#no-problems-text", "Not known")
	b.waitFor("document.documentElement.classList.contains('outdated')")
	env.startWorker("backend", workerID(1), 70)
	p.start()
	b.waitForText("#live", "Live")
	b.waitForText("#n-workers", "2")
	b.waitForText("#no-problems-text", "Nothing. All 2 workers answer")
	b.waitFor("document.querySelector('#banner').hidden && !document.documentElement.classList.contains('outdated')")
}

func TestWebPageMarksStaleNumbers(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics()
	b := startChromium(t).newTab(t)
	b.open(p.url + "/")
	b.waitForText("#live", "Live")
	b.expectOutage(true)
	p.Signal(syscall.SIGSTOP)
	b.waitForText("#banner", "No data for", "Everything below is as it was at")
	b.waitForText("#live", "Stale")
	p.Signal(syscall.SIGCONT)
	b.waitForText("#live", "Live")
	b.waitFor("document.querySelector('#banner').hidden")
	b.expectOutage(false)
}

func TestWebPageShowsWhyStreamIsRefused(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics()
	const maxStreams = 100 // the program's limit
	var streams []*http.Response
	for range maxStreams {
		resp, err := http.Get(p.url + "/events")
		must(t, err)
		defer resp.Body.Close()
		streams = append(streams, resp)
	}
	b := startChromium(t).newTab(t)
	b.expectOutage(true)
	b.open(p.url + "/")
	b.waitForText("#banner", "Not connected.", "There are 100 open streams already", "Trying again")
	for _, resp := range streams {
		resp.Body.Close()
	}
	b.waitForText("#live", "Live")
	b.waitFor("document.querySelector('#banner').hidden")
	b.expectOutage(false)
}

// The page of one version of the program may not understand the snapshots of another version.
func TestWebPageReloadsForAnotherVersion(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics()
	b := startChromium(t).newTab(t)
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		sessionStorage.loads = +(sessionStorage.loads ?? 0) + 1
		const {parse} = JSON
		let n = 0
		JSON.parse = s => {
			const snapshot = parse(s)
			if (sessionStorage.loads === '1' && ++n > 2) snapshot.version = 'another'
			return snapshot
		}`}, nil)
	b.open(p.url + "/#sort=kv")
	b.waitForText("#n-workers", "1")
	b.waitFor("sessionStorage.loads === '2'")
	b.waitForText("#live", "Live")
	b.waitForFragment("#sort=kv")
}

// A hidden page closes its stream after a minute, and connects again when it is shown.
func TestWebPageClosesStreamWhenHidden(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics()
	b := startChromium(t).newTab(t)
	// The page's timer of one minute is shortened.
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		const later = setTimeout
		setTimeout = (f, ms, ...rest) => later(f, ms === 60000 ? 50 : ms, ...rest)
		let hidden = false
		Object.defineProperty(document, 'hidden', {get: () => hidden})
		hide = yes => { hidden = yes; document.dispatchEvent(new Event('visibilitychange')) }`}, nil)
	b.open(p.url + "/")
	b.waitForText("#live", "Live")
	b.run("hide(true)")
	b.waitForText("#live", "Connecting")
	b.waitFor("document.title === 'dynamo · metrics'")
	b.run("hide(false)")
	b.waitForText("#live", "Live")
	b.waitFor("document.title.startsWith('1/1 ')")
}

func TestWebPageOnStandby(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	leader := env.startMetrics("--standby")
	leader.waitForFleet(`"role":"leader"`)
	standby := env.startMetrics("--standby")
	standby.WaitForLine("Standing by")
	b := startChromium(t).newTab(t)
	b.open(standby.url + "/")
	b.waitForText("#role", "standby")
	b.waitForText("#n-workers", "1")
	leader.Terminate()
	b.waitForText("#role", "leader")
}

// bcryptHash is the bcrypt hash of "secret".
const bcryptHash = "$2a$04$BWSdB/BnnmmxHeExxmRRi.cPwBEWp.R.l7p4.VPdlMKQNnuH/0HzW"

func TestWebPageWithTLSAndPassword(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	ca := testutil.NewAuthorityWithCertificates(t)
	config := filepath.Join(ca.Dir, "web.yml")
	must(t, os.WriteFile(config, []byte("tls_server_config:\n  cert_file: "+ca.File("server.crt")+"\n  key_file: "+ca.File("server.key")+
		"\nbasic_auth_users:\n  ali: "+bcryptHash+"\n"), 0o600))
	address := strings.Replace(env.startMetrics("--web.config.file", config).url, "http:", "https:", 1)
	c := startChromium(t)
	for _, inAddress := range []bool{false, true} {
		b := c.newTab(t)
		b.call("Security.setIgnoreCertificateErrors", object{"ignore": true}, nil)
		b.expectOutage(true) // Chromium logs the answer 401
		if inAddress {
			b.open(strings.Replace(address, "//", "//ali:secret@", 1) + "/")
		} else {
			b.signIn(url.UserPassword("ali", "secret"))
			b.open(address + "/")
		}
		b.waitForText("#live", "Live")
		b.expectOutage(false)
		b.waitForText("#n-workers", "1")
		b.click("#rows tr .c-kv")
		b.waitFor("document.querySelector('#w-p0 .line').getAttribute('d').length > 4") // the worker's history has arrived
	}
}
