//go:build real

package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
)

// widths holds one window width for each range of the style's media queries.
var widths = []int{1440, 1180, 900, 640, 390}

// TestWebPageAccessibility has axe-core check each state of the page, in both themes and all widths.
func TestWebPageAccessibility(t *testing.T) {
	axe := axeCore(t)
	env := newEnvironment(t)
	c := startChromium(t)

	empty := env.startMetrics("--component", "none", "--standby")
	checkAccessibility(t, c, axe, "empty", empty.url+"/", "#empty", nil)
	for n := range 20 {
		env.startWorker("backend", workerID(n), 5*n)
		env.publishHit(workerID(n), 100, 40)
	}
	ok := env.startMetrics("--component", "backend", "--standby")
	checkAccessibility(t, c, axe, "ok", ok.url+"/", "#rows", nil)
	startFleet(env)
	trouble := env.startMetrics("--standby")
	checkAccessibility(t, c, axe, "trouble", trouble.url+"/", "#serious", nil)
	checkAccessibility(t, c, axe, "open", fmt.Sprintf("%s/#w=%d", trouble.url, workerID(30)), "#w-anomalies", nil)
	checkAccessibility(t, c, axe, "keys", trouble.url+"/", "#rows", func(b *tab) { b.pressKeys("?") })
	checkAccessibility(t, c, axe, "lost", trouble.url+"/", "#rows", func(b *tab) {
		b.expectOutage(true)
		trouble.Kill()
		b.waitForText("#banner", "Connection lost")
	})
}

// checkAccessibility opens the page, waits until the element has text, calls prepare, and has
// axe-core check the page in both themes and all widths.
func checkAccessibility(t *testing.T, c *chromium, axe, state, address, element string, prepare func(*tab)) {
	t.Run(state, func(t *testing.T) {
		b := c.newTab(t)
		b.open(address)
		b.waitFor(fmt.Sprintf("!!document.querySelector(%q)?.innerText.trim()", element))
		if prepare != nil {
			prepare(b)
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
		// axe-core must find a fault that is there.
		b.run("(document.querySelector('dialog[open]') ?? document.body).insertAdjacentHTML('beforeend', '<button></button>')")
		if found := strings.Join(b.violations(), "\n"); !strings.Contains(found, "button-name") {
			t.Errorf("axe reports no violation of button-name for a button without a name, only: %s", found)
		}
	})
}

// violations returns the violations that axe-core finds in the page as it is.
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

// axeCore returns the script of axe-core, which .ci/run installs.
func axeCore(t *testing.T) string {
	t.Helper()
	path := filepath.Join(process.Cache(t), "axe", "node_modules", "axe-core", "axe.min.js")
	script, err := os.ReadFile(path)
	if err != nil {
		process.FailOrSkip(t, fmt.Sprintf("axe-core is not installed: npm install --prefix %s axe-core", filepath.Join(process.Cache(t), "axe")))
	}
	return string(script)
}

// screenshot writes a picture of the page into the directory that DYNAMO_SCREENSHOTS names, if it does.
func (b *tab) screenshot(name string) {
	b.t.Helper()
	if dir := os.Getenv("DYNAMO_SCREENSHOTS"); dir != "" {
		must(b.t, os.WriteFile(filepath.Join(dir, name+".png"), b.capture(), 0o600))
	}
}
