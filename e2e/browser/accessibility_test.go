//go:build real

package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
)

// widths are one of each of the style's steps.
var widths = []int{1440, 1180, 900, 640, 390}

func TestWebPageAccessibility(t *testing.T) {
	axe := axeCore(t)
	s := newEnvironment(t)
	c := startChromium(t)

	empty := s.startMetrics("--component", "nobody", "--standby")
	checkAccessibility(t, c, axe, "empty", empty.url+"/", "#empty", nil)
	for n := range 20 {
		s.startWorker("backend", workerID(n), 5*n)
		s.publishHit(workerID(n), 100, 40)
	}
	ok := s.startMetrics("--component", "backend", "--standby")
	checkAccessibility(t, c, axe, "ok", ok.url+"/", "#rows", nil)
	startFleet(s)
	trouble := s.startMetrics("--standby")
	checkAccessibility(t, c, axe, "trouble", trouble.url+"/", "#serious", nil)
	checkAccessibility(t, c, axe, "open", fmt.Sprintf("%s/#w=%d", trouble.url, workerID(30)), "#w-anomalies", nil)
	checkAccessibility(t, c, axe, "keys", trouble.url+"/", "#rows", func(b *tab) { b.pressKeys("?") })
	checkAccessibility(t, c, axe, "lost", trouble.url+"/", "#rows", func(b *tab) {
		b.expectOutage(true)
		trouble.Kill()
		b.waitForText("#banner", "Connection lost")
	})
}

// looksFine has axe look at a state of the page in both themes and all widths: once until
// is there, and then has been done.
func checkAccessibility(t *testing.T, c *chromium, axe, state, address, until string, then func(*tab)) {
	t.Run(state, func(t *testing.T) {
		b := c.newTab(t)
		b.open(address)
		b.waitFor(fmt.Sprintf("!!document.querySelector(%q)?.innerText.trim()", until))
		if then != nil {
			then(b)
		}
		must(t, b.eval(axe, nil))
		for _, theme := range []string{"light", "dark"} {
			b.setTheme(theme)
			b.waitFor(fmt.Sprintf("document.documentElement.dataset.theme === %q", theme))
			for _, width := range widths {
				b.resize(width, 900)
				b.waitFor(fmt.Sprintf("innerWidth === %d && document.documentElement.scrollWidth <= innerWidth", width))
				for _, v := range b.violations() {
					t.Errorf("%s, %d wide: %s", theme, width, v)
				}
				b.screenshot(fmt.Sprintf("%s-%s-%d", state, theme, width))
			}
		}
		// What finds nothing may not look.
		b.run("(document.querySelector('dialog[open]') ?? document.body).insertAdjacentHTML('beforeend', '<button></button>')")
		if found := strings.Join(b.violations(), "\n"); !strings.Contains(found, "button-name") {
			t.Errorf("axe finds no fault in a button without a name: %s", found)
		}
	})
}

// violations are what axe has found.
func (b *tab) violations() (found []string) {
	b.t.Helper()
	var answer []struct {
		ID, Help string
		Nodes    []struct{ HTML, FailureSummary string }
	}
	must(b.t, b.eval("axe.run({rules: {'target-size': {enabled: true}}}).then(r => r.violations)", &answer))
	for _, v := range answer {
		var where []string
		for _, n := range v.Nodes {
			where = append(where, fmt.Sprintf("%.200s: %s", n.HTML, strings.ReplaceAll(n.FailureSummary, "\n", " ")))
		}
		found = append(found, fmt.Sprintf("%s (%s)\n\t%s", v.ID, v.Help, strings.Join(where, "\n\t")))
	}
	return found
}

// axeCore is the script of axe-core, which .ci/run installs.
func axeCore(t *testing.T) string {
	t.Helper()
	path := filepath.Join(process.Cache(t), "axe", "node_modules", "axe-core", "axe.min.js")
	script, err := os.ReadFile(path)
	if err != nil {
		process.FailOrSkip(t, fmt.Sprintf("axe-core is not installed: npm install --prefix %s axe-core", filepath.Join(process.Cache(t), "axe")))
	}
	return string(script)
}

// picture keeps what the page looks like, if somebody wants to see it.
func (b *tab) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("DYNAMO_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data json.RawMessage }
	b.call("Page.captureScreenshot", object{"format": "png"}, &shot)
	var png []byte
	must(b.t, json.Unmarshal(shot.Data, &png))
	must(b.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600))
}
