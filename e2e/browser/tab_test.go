//go:build real

package browser

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/internal/testutil"
)

// object holds the parameters of a call.
type object map[string]any

// tab is a browser tab with its own cookies and storage. At the end of its test, the page must
// have had no error and sent no request to another host.
type tab struct {
	t       *testing.T
	browser *chromium
	session string
	origin  string // the only origin that it may send requests to

	mu       sync.Mutex
	errors   []string
	requests []string
	outage   bool // the test has stopped the program, so failed requests are no error
	password *url.Userinfo
}

// newTab opens a tab with the light theme, which is wide enough for the whole page.
func (c *chromium) newTab(t *testing.T) *tab {
	t.Helper()
	b := &tab{t: t, browser: c}
	var context struct{ BrowserContextID string }
	var target struct{ TargetID string }
	var attached struct{ SessionID string }
	must(t, c.call("", "Target.createBrowserContext", object{"disposeOnDetach": true}, &context))
	must(t, c.call("", "Target.createTarget", object{"url": "about:blank", "browserContextId": context.BrowserContextID}, &target))
	must(t, c.call("", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &attached))
	b.session = attached.SessionID
	c.mu.Lock()
	c.tabs[b.session] = b
	c.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", object{}, nil)
	}
	// The metrics count CPU time, because other processes run at the same time.
	b.call("Performance.enable", object{"timeDomain": "threadTicks"}, nil)
	b.resize(1440, 1120)
	b.setTheme("light")
	t.Cleanup(func() {
		b.checkErrors()
		c.call("", "Target.disposeBrowserContext", object{"browserContextId": context.BrowserContextID}, nil)
	})
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *tab) call(method string, params, result any) {
	b.t.Helper()
	if err := b.browser.call(b.session, method, params, result); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// userinfo matches the name and password of a URL.
var userinfo = regexp.MustCompile("//[^/@]*@")

// handleEvent records the requests and errors that checkErrors checks, and answers authentication requests.
func (b *tab) handleEvent(m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var p struct {
		RequestID        string
		Request          struct{ URL string }
		Entry            struct{ Source, Level, Text, URL string }
		Type             string
		Args             []struct{ Value, Description any }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if err := json.Unmarshal(m.Params, &p); err != nil {
		b.errors = append(b.errors, fmt.Sprintf("%s: %v", m.Method, err))
		return
	}
	switch m.Method {
	case "Network.requestWillBeSent":
		b.requests = append(b.requests, userinfo.ReplaceAllString(p.Request.URL, "//"))
	case "Runtime.exceptionThrown":
		b.errors = append(b.errors, p.ExceptionDetails.Text+" "+p.ExceptionDetails.Exception.Description)
	case "Runtime.consoleAPICalled":
		b.errors = append(b.errors, fmt.Sprintf("console.%s: %v", p.Type, p.Args))
	case "Log.entryAdded":
		if !b.outage || p.Entry.Source != "network" {
			b.errors = append(b.errors, fmt.Sprintf("%s: %s %s", p.Entry.Level, p.Entry.Text, p.Entry.URL))
		}
	case "Fetch.requestPaused":
		go b.browser.call(b.session, "Fetch.continueRequest", object{"requestId": p.RequestID}, nil)
	case "Fetch.authRequired":
		secret, _ := b.password.Password()
		go b.browser.call(b.session, "Fetch.continueWithAuth", object{"requestId": p.RequestID, "authChallengeResponse": object{
			"response": "ProvideCredentials", "username": b.password.Username(), "password": secret,
		}}, nil)
	}
}

// checkErrors fails the test if the page had an error, or sent a request to another host.
func (b *tab) checkErrors() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.errors) > 0 {
		b.t.Errorf("the page had errors:\n%s", strings.Join(b.errors, "\n"))
	}
	b.errors = nil
	for _, u := range b.requests {
		if !strings.HasPrefix(u, b.origin+"/") {
			b.t.Errorf("the page requested %s, want requests to %s only", u, b.origin)
		}
	}
	if b.origin != "" && len(b.requests) == 0 {
		b.t.Error("no request was seen")
	}
}

// expectOutage sets whether failed requests are expected, because the test has stopped the program.
func (b *tab) expectOutage(yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outage = yes
}

// signIn enters a name and a password when the program requests them.
func (b *tab) signIn(u *url.Userinfo) {
	b.t.Helper()
	b.password = u
	b.call("Fetch.enable", object{"handleAuthRequests": true}, nil)
}

// resize sets the window's size in pixels.
func (b *tab) resize(width, height int) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// resizePhone sets the window's size as on a phone: there, a page that is too wide is scaled
// down, and an element that is fixed at the right edge is out of sight.
func (b *tab) resizePhone(width, height int) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 2, "mobile": true}, nil)
}

// setTheme sets the theme that the person prefers, and that they prefer reduced motion.
func (b *tab) setTheme(name string) {
	b.t.Helper()
	b.setMedia(name, "reduce")
}

// setMedia sets the media features for theme and motion.
func (b *tab) setMedia(theme, motion string) {
	b.t.Helper()
	b.call("Emulation.setEmulatedMedia", object{"features": []object{
		{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": motion},
	}}, nil)
}

// open opens a URL.
func (b *tab) open(address string) {
	b.t.Helper()
	page, _, _ := strings.Cut(address, "#")
	u, err := url.Parse(page)
	must(b.t, err)
	b.origin = u.Scheme + "://" + u.Host
	var at struct{ ErrorText string }
	b.call("Page.navigate", object{"url": address}, &at)
	if at.ErrorText != "" {
		b.t.Fatalf("open %s: %s", address, at.ErrorText)
	}
}

// countSnapshots makes the pages that are opened from now on count their snapshots in seen, and
// keep the last one in latest.
func (b *tab) countSnapshots() {
	b.t.Helper()
	b.call("Page.addScriptToEvaluateOnNewDocument", object{"source": `
		globalThis.seen = 0
		const Real = EventSource
		EventSource = class extends Real {
			constructor(...args) { super(...args); this.addEventListener('message', e => { seen++; globalThis.latest = e.data }) }
		}`}, nil)
}

// waitForSnapshots waits for n more snapshots.
func (b *tab) waitForSnapshots(n int) {
	b.t.Helper()
	var from int
	must(b.t, b.eval("seen", &from))
	b.waitFor(fmt.Sprintf("seen >= %d", from+n))
}

// eval evaluates an expression. If it is a promise, eval waits for its value.
func (b *tab) eval(expression string, result any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	err := b.browser.call(b.session, "Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &answer)
	if err != nil {
		return fmt.Errorf("%s: %w", expression, err)
	}
	if e := answer.ExceptionDetails; e != nil {
		return fmt.Errorf("%s: %s", expression, e.Exception.Description)
	}
	if result == nil || answer.Result.Value == nil {
		return nil
	}
	return json.Unmarshal(answer.Result.Value, result)
}

// run evaluates an expression for its effect.
func (b *tab) run(expression string) {
	b.t.Helper()
	must(b.t, b.eval("void ("+expression+")", nil))
}

// text returns the visible text of the first element that matches a selector. It is empty if
// there is no such element, or it is hidden.
func (b *tab) text(selector string) (s string) {
	b.t.Helper()
	must(b.t, b.eval(fmt.Sprintf("document.querySelector(%q)?.checkVisibility() ? document.querySelector(%[1]q).innerText.replace(/\\s+/g, ' ').trim() : ''", selector), &s))
	return s
}

// waitForText waits until the text of an element contains all of these.
func (b *tab) waitForText(selector string, wants ...string) {
	b.t.Helper()
	testutil.Until(b.t, func() error {
		text := b.text(selector)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				return fmt.Errorf("the text of %s is %q, want %q in it", selector, text, want)
			}
		}
		return nil
	})
}

// waitFor waits until an expression is true.
func (b *tab) waitFor(expression string) {
	b.t.Helper()
	testutil.Until(b.t, func() error {
		var yes bool
		if err := b.eval(expression, &yes); err != nil || !yes {
			return fmt.Errorf("not yet: %s (%v)", expression, err)
		}
		return nil
	})
}

// waitForFragment waits until the URL has this fragment.
func (b *tab) waitForFragment(want string) {
	b.t.Helper()
	testutil.Until(b.t, func() error {
		var got string
		must(b.t, b.eval("location.hash", &got))
		if got != want {
			return fmt.Errorf("the fragment is %q, want %q", got, want)
		}
		return nil
	})
}

// capture returns a screenshot of the window as a PNG.
func (b *tab) capture() []byte {
	b.t.Helper()
	var shot struct{ Data []byte }
	b.call("Page.captureScreenshot", object{"format": "png"}, &shot)
	return shot.Data
}

// keyCodes holds the codes of the keys that do not write a letter.
var keyCodes = map[string]int{"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9}

// pressKeys presses and releases keys one after the other.
func (b *tab) pressKeys(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		key := object{"type": "keyDown", "key": k, "text": k}
		if code, named := keyCodes[k]; named {
			key["windowsVirtualKeyCode"], key["code"] = code, k
			delete(key, "text")
		}
		if k == "Enter" {
			key["text"] = "\r"
		}
		b.call("Input.dispatchKeyEvent", key, nil)
		key["type"] = "keyUp"
		delete(key, "text")
		b.call("Input.dispatchKeyEvent", key, nil)
	}
}

// click clicks on the middle of an element.
func (b *tab) click(selector string) {
	b.t.Helper()
	var at struct{ X, Y float64 }
	must(b.t, b.eval(fmt.Sprintf("(e => { e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); return {x: r.x + r.width / 2, y: r.y + r.height / 2} })(document.querySelector(%q))", selector), &at))
	b.clickAt(at.X, at.Y)
}

func (b *tab) clickAt(x, y float64) {
	b.t.Helper()
	for _, kind := range []string{"mouseMoved", "mousePressed", "mouseReleased"} {
		b.call("Input.dispatchMouseEvent", object{"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}, nil)
	}
}
