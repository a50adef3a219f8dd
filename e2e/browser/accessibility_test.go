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

func TestRealPageIsAccessible(t *testing.T) {
	axe := axeCore(t)
	s := newStage(t)
	c := startChromium(t)

	empty := s.metrics("--component", "nobody", "--standby")
	looksFine(t, c, axe, "empty", empty.url+"/", "#empty", nil)
	for n := range 20 {
		s.worker("backend", nth(n), 5*n)
		s.hit(nth(n), 100, 40)
	}
	ok := s.metrics("--component", "backend", "--standby")
	looksFine(t, c, axe, "ok", ok.url+"/", "#rows", nil)
	company(s)
	trouble := s.metrics("--standby")
	looksFine(t, c, axe, "trouble", trouble.url+"/", "#serious", nil)
	looksFine(t, c, axe, "open", fmt.Sprintf("%s/#w=%d", trouble.url, nth(30)), "#w-odd", nil)
	looksFine(t, c, axe, "keys", trouble.url+"/", "#rows", func(b *tab) { b.press("?") })
	looksFine(t, c, axe, "lost", trouble.url+"/", "#rows", func(b *tab) {
		b.down(true)
		trouble.Kill()
		b.says("#banner", "Connection lost")
	})
}

// looksFine has axe look at a state of the page in both themes and all widths: once until
// is there, and then has been done.
func looksFine(t *testing.T, c *chromium, axe, state, address, until string, then func(*tab)) {
	t.Run(state, func(t *testing.T) {
		b := c.newTab(t)
		b.open(address)
		b.is(fmt.Sprintf("!!document.querySelector(%q)?.innerText.trim()", until))
		if then != nil {
			then(b)
		}
		must(t, b.try(axe, nil))
		for _, theme := range []string{"light", "dark"} {
			b.theme(theme)
			b.is(fmt.Sprintf("document.documentElement.dataset.theme === %q", theme))
			for _, width := range widths {
				b.size(width, 900)
				b.is(fmt.Sprintf("innerWidth === %d && document.documentElement.scrollWidth <= innerWidth", width))
				for _, v := range b.violations() {
					t.Errorf("%s, %d wide: %s", theme, width, v)
				}
				b.picture(fmt.Sprintf("%s-%s-%d", state, theme, width))
			}
		}
		// What finds nothing may not look.
		b.do("(document.querySelector('dialog[open]') ?? document.body).insertAdjacentHTML('beforeend', '<button></button>')")
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
	must(b.t, b.try("axe.run({rules: {'target-size': {enabled: true}}}).then(r => r.violations)", &answer))
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
func (b *tab) picture(name string) {
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
