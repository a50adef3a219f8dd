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

func TestRealPageRecoversByItself(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	p := s.metrics("--standby") // the key of one that was killed is there for ten seconds
	b := startChromium(t).newTab(t)
	b.open(p.url + "/")
	b.says("#live", "Live")
	b.says("#n-workers", "1")
	b.down(true)
	p.Kill()
	b.says("#banner", "Connection lost.", "Everything below is as it was at", "Trying again")
	b.says("#live", "Not connected")
	b.says("#finetext", "Not known")
	b.is("document.documentElement.classList.contains('old')")
	s.worker("backend", nth(1), 70)
	p.start()
	b.says("#live", "Live")
	b.says("#n-workers", "2")
	b.says("#finetext", "Nothing. All 2 workers answer")
	b.is("document.querySelector('#banner').hidden && !document.documentElement.classList.contains('old')")
}

func TestRealPageSaysThatItsNumbersAreStale(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	p := s.metrics()
	b := startChromium(t).newTab(t)
	b.open(p.url + "/")
	b.says("#live", "Live")
	b.down(true)
	p.Signal(syscall.SIGSTOP)
	b.says("#banner", "No data for", "Everything below is as it was at")
	b.says("#live", "Stale")
	p.Signal(syscall.SIGCONT)
	b.says("#live", "Live")
	b.is("document.querySelector('#banner').hidden")
	b.down(false)
}

func TestRealPageSaysWhyItGetsNoStream(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	p := s.metrics()
	const most = 100 // that the program serves
	var others []*http.Response
	for range most {
		resp, err := http.Get(p.url + "/events")
		must(t, err)
		defer resp.Body.Close()
		others = append(others, resp)
	}
	b := startChromium(t).newTab(t)
	b.down(true)
	b.open(p.url + "/")
	b.says("#banner", "Not connected.", "There are 100 open pages already", "Trying again")
	for _, resp := range others {
		resp.Body.Close()
	}
	b.says("#live", "Live")
	b.is("document.querySelector('#banner').hidden")
	b.down(false)
}

// The page of one version of the program does not know the snapshots of another.
func TestRealPageIsLoadedAnewForAnotherVersion(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	p := s.metrics()
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
	b.says("#n-workers", "1")
	b.is("sessionStorage.loads === '2'")
	b.says("#live", "Live")
	b.fragment("#sort=kv")
}

// Whoever looks at a page that another is in front of gets it anew.
func TestRealPageThatNobodySeesLetsGoOfItsStream(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	p := s.metrics()
	b := startChromium(t).newTab(t)
	// A minute is long: the page's clock is wound on.
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		const later = setTimeout
		setTimeout = (f, ms, ...rest) => later(f, ms === 60000 ? 50 : ms, ...rest)
		let hidden = false
		Object.defineProperty(document, 'hidden', {get: () => hidden})
		hide = yes => { hidden = yes; document.dispatchEvent(new Event('visibilitychange')) }`}, nil)
	b.open(p.url + "/")
	b.says("#live", "Live")
	b.do("hide(true)")
	b.says("#live", "Connecting")
	b.is("document.title === 'dynamo · metrics'")
	b.do("hide(false)")
	b.says("#live", "Live")
	b.is("document.title.startsWith('1/1 ')")
}

func TestRealPageOnAStandby(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	leader := s.metrics("--standby")
	leader.tells(`"role":"leader"`)
	standby := s.metrics("--standby")
	standby.WaitForLine("Standing by")
	b := startChromium(t).newTab(t)
	b.open(standby.url + "/")
	b.says("#role", "standby")
	b.says("#n-workers", "1")
	leader.Terminate()
	b.says("#role", "leader")
}

// hash is bcrypt's of "secret".
const hash = "$2a$04$BWSdB/BnnmmxHeExxmRRi.cPwBEWp.R.l7p4.VPdlMKQNnuH/0HzW"

func TestRealPageBehindTLSAndAPassword(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	ca := testutil.NewAuthorityWithCertificates(t)
	config := filepath.Join(ca.Dir, "web.yml")
	must(t, os.WriteFile(config, []byte("tls_server_config:\n  cert_file: "+ca.File("server.crt")+"\n  key_file: "+ca.File("server.key")+
		"\nbasic_auth_users:\n  ali: "+hash+"\n"), 0o600))
	address := strings.Replace(s.metrics("--web.config.file", config).url, "http:", "https:", 1)
	c := startChromium(t)
	for _, inAddress := range []bool{false, true} {
		b := c.newTab(t)
		b.call("Security.setIgnoreCertificateErrors", object{"ignore": true}, nil)
		b.down(true) // that it asks for a password is in the log
		if inAddress {
			b.open(strings.Replace(address, "//", "//ali:secret@", 1) + "/")
		} else {
			b.signIn(url.UserPassword("ali", "secret"))
			b.open(address + "/")
		}
		b.says("#live", "Live")
		b.down(false)
		b.says("#n-workers", "1")
		b.click("#rows tr .c-kv")
		b.is("document.querySelector('#w-p0 .line').getAttribute('d').length > 4") // its history has come
	}
}
