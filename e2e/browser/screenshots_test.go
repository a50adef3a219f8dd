//go:build real

package browser

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

const maxScreenshotSize = 200_000 // bytes

// TestWebPageScreenshots checks that docs/images has screenshots of the page as it is today, in
// both themes. With -update it takes them, when the plots, which then show five minutes, are full.
func TestWebPageScreenshots(t *testing.T) {
	env := newEnvironment(t)
	f := startLiveFleet(env)
	p := env.startMetrics("--poll-interval", "1")
	b := startChromium(t).newTab(t)
	b.open(p.url + "/#sort=id&dir=asc")
	b.waitForText("#n-workers", "18")
	f.run(10 * time.Second)
	if testutil.Update() {
		f.run(4*time.Minute + 35*time.Second)
	}
	b.waitForText("#problems", "nearly full", "silent")
	for _, theme := range []string{"light", "dark"} {
		b.setTheme(theme)
		b.waitFor(fmt.Sprintf("document.documentElement.dataset.theme === %q", theme))
		checkScreenshot(t, filepath.Join("..", "..", "docs", "images", "page-"+theme+".png"), b.captureAll())
	}
}

// checkScreenshot compares the width of a screenshot, and about its height, with the file. With
// -update it writes the file.
func checkScreenshot(t *testing.T, path string, screenshot []byte) {
	t.Helper()
	taken, err := png.Decode(bytes.NewReader(screenshot))
	must(t, err)
	if testutil.Update() {
		var b bytes.Buffer
		must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, withPalette(taken)))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, b.Bytes(), 0o644))
	}
	b, err := os.ReadFile(path)
	must(t, err)
	if len(b) > maxScreenshotSize {
		t.Errorf("%s has %d bytes, want at most %d", path, len(b), maxScreenshotSize)
	}
	kept, err := png.DecodeConfig(bytes.NewReader(b))
	must(t, err)
	// The height depends on the fonts that are installed, and on the problems of the moment.
	got, want := image.Pt(kept.Width, kept.Height), taken.Bounds().Size()
	if got.X != want.X || max(got.Y, want.Y)-min(got.Y, want.Y) > want.Y/4 {
		t.Errorf("%s has %v pixels, but the page has %v: take it again with -update", path, got, want)
	}
}

// captureAll takes a screenshot of the whole page, 1,440 pixels wide.
func (b *tab) captureAll() []byte {
	b.t.Helper()
	var height int
	b.resize(1440, 900)
	b.waitForLayout(1440)
	must(b.t, b.eval("document.documentElement.scrollHeight", &height))
	b.resize(1440, height)
	b.waitFor(fmt.Sprintf("innerHeight === %d", height))
	return b.capture()
}

// liveFleet is a fleet for screenshots: 18 workers of two components whose loads change.
type liveFleet struct {
	env     *environment
	workers []*worker // the fifth is full, and the last is silent
	ticks   int
}

func startLiveFleet(env *environment) *liveFleet {
	f := &liveFleet{env: env}
	for n := range 18 {
		component := "backend"
		if n >= 12 {
			component = "prefill"
		}
		f.workers = append(f.workers, env.startWorker(component, 0x694d9a3e51b07c08+uint64(n)*0x1e5, 50))
	}
	f.tick()
	f.workers[len(f.workers)-1].stopAnswering()
	return f
}

// run changes loads and publishes hit-rate events once a second.
func (f *liveFleet) run(d time.Duration) {
	for range int(d.Seconds()) {
		f.tick()
		time.Sleep(time.Second)
	}
}

func (f *liveFleet) tick() {
	f.ticks++
	for n, w := range f.workers[:len(f.workers)-1] {
		phase := float64(f.ticks)/40 + float64(n)*1.7
		percent := 68 + int(7*math.Sin(phase)+4*math.Sin(3.1*phase)+3*math.Sin(float64(f.ticks)/60))
		if n >= 12 {
			percent -= 28
		}
		waiting := max(0, percent-75)
		if n == 4 {
			percent, waiting = 95+f.ticks/7%3, 7+f.ticks/5%5
		}
		w.setLoad(percent, waiting)
		for range 3 + n%3 {
			f.env.publishHit(w.instance.ID, 100, 48+n%5*4+int(9*math.Sin(phase/2)))
		}
	}
}

// withPalette reduces an image to 256 colours, which makes its file much smaller.
func withPalette(from image.Image) *image.Paletted {
	counts := map[color.RGBA]int{}
	bounds := from.Bounds()
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(from.At(x, y)).(color.RGBA) }
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			counts[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(counts), func(a, b color.RGBA) int {
		return cmp.Or(counts[b]-counts[a], int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B))
	})
	palette := choosePalette(colours)
	to := image.NewPaletted(bounds, palette)
	nearest := map[color.RGBA]uint8{}
	for _, c := range colours {
		nearest[c] = uint8(palette.Index(c))
	}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			to.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	return to
}

// choosePalette returns at most 256 of these colours, which begin with the most frequent one. It
// leaves out colours that are close to a chosen one, so that rare but distinct colours remain.
func choosePalette(colours []color.RGBA) color.Palette {
	for limit := 0; ; limit++ {
		var palette color.Palette
		for _, c := range colours {
			if !slices.ContainsFunc(palette, func(p color.Color) bool { return distance(c, p.(color.RGBA)) <= limit }) {
				palette = append(palette, c)
			}
			if len(palette) > 256 {
				break
			}
		}
		if len(palette) <= 256 {
			return palette
		}
	}
}

// distance returns the greatest difference of a channel.
func distance(a, b color.RGBA) int {
	diff := func(x, y uint8) int { return max(int(x)-int(y), int(y)-int(x)) }
	return max(diff(a.R, b.R), diff(a.G, b.G), diff(a.B, b.B))
}
