//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

func TestRealPageFindsByIDAndByWords(t *testing.T) {
	s := newStage(t)
	company(s)
	s.registered("prefill", nth(200))
	p := s.metrics("--model-name", "meta-llama/Llama-3.1-8B")
	s.ranks(p, nth(200), 3)
	b := startChromium(t).newTab(t)
	b.open(p.url + "/")
	b.says("#n-workers", "45")
	search := func(query string, workers int) {
		b.do(fmt.Sprintf("(q => { q.value = %q; q.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('#f-q'))", query))
		b.says("#shown", fmt.Sprintf("%d of 45 workers shown", workers))
	}
	for query, workers := range map[string]int{
		fmt.Sprintf("0x%x", nth(3)):                 1,
		fmt.Sprintf("0X%X", nth(3)):                 1,
		fmt.Sprintf("0x%016x", nth(3)):              1,
		fmt.Sprintf("0x00%x", nth(3)):               1,
		fmt.Sprintf("%x", nth(3)):                   1,
		fmt.Sprintf("%X", nth(3)):                   1,
		fmt.Sprint(nth(3)):                          1,
		"0x694d":                                    45,
		"0x1003":                                    0, // no id begins so
		fmt.Sprintf("  %d  prefill ", nth(103)):     1,
		fmt.Sprintf("backend %d", nth(103)):         0,
		"generate prefill":                          11,
		"LLAMA prefill":                             11,
		"llama\tgenerate":                           45,
		fmt.Sprintf("%x rank 2", nth(200)):          1,
		"0x":                                        45,
		fmt.Sprintf("0x%x 0x%x", nth(3), nth(4)):    0,
		strings.Repeat("backend/generate ", 40):     34,
		"back(end":                                  0,
		"dynamo-that-is-not-there backend generate": 0,
	} {
		search(query, workers)
	}
	search("no worker is called so", 0)
	b.says("#nomatch", "No worker matches these filters.")
}

func TestRealPageOpensTheWorkerWhoseIDIsClicked(t *testing.T) {
	s := newStage(t)
	company(s)
	p := s.metrics()
	p.tells("full:backend/generate")
	b := startChromium(t).newTab(t)
	b.counts()
	b.open(p.url + "/#sort=id&dir=asc")
	b.says("#n-workers", "44")
	for _, id := range []string{".dec", ".hex"} {
		b.click("#rows tr:nth-child(3) " + id)
		b.says("#w-title", fmt.Sprintf("%x", nth(2)))
		b.press("Escape")
		b.is("document.querySelector('#worker').hidden && document.querySelector('#toast').hidden")
	}
	b.do("document.querySelectorAll('details').forEach(d => { d.open = true })")
	full := fmt.Sprintf(`[...document.querySelectorAll('.problem p a')].find(a => a.innerText === '%x')`, nth(30))
	b.is("!!" + full)
	b.do(full + ".click()")
	b.says("#w-title", fmt.Sprintf("%x", nth(30)))
	b.press("Escape")
	b.is("document.querySelector('#worker').hidden")
	b.do(full + ".focus()")
	b.more(3)
	b.is("document.activeElement === " + full)
	b.press("Enter")
	b.says("#w-title", fmt.Sprintf("%x", nth(30)))
	b.press("Escape")
	b.is("document.activeElement === " + full)
}

func TestRealPageLetsTextBeSelected(t *testing.T) {
	s := newStage(t)
	company(s)
	b := s.open("#sort=id&dir=asc")
	b.says("#n-workers", "44")
	for _, id := range []string{".dec", ".hex"} {
		b.do("getSelection().removeAllRanges(), document.querySelector('#rows tr').scrollIntoView({block: 'center'})")
		var at struct{ X, Y, Width float64 }
		must(t, b.try(fmt.Sprintf("(r => ({x: r.x, y: r.y + r.height / 2, width: r.width}))(document.querySelector('#rows %s').getBoundingClientRect())", id), &at))
		mouse := func(kind string, x float64) {
			b.call("Input.dispatchMouseEvent", object{"type": kind, "x": x, "y": at.Y, "button": "left", "buttons": 1, "clickCount": 1}, nil)
		}
		mouse("mousePressed", at.X+1)
		for part := range 10 {
			mouse("mouseMoved", at.X+at.Width*float64(part+1)/10)
		}
		mouse("mouseReleased", at.X+at.Width)
		b.is(fmt.Sprintf("getSelection().toString().trim() === document.querySelector('#rows %s').innerText", id))
		b.is("document.querySelector('#worker').hidden")
	}
}

func TestRealPageClosesItsKeysByTheirKey(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	b := s.open("")
	b.says("#n-workers", "1")
	for range 2 {
		b.press("?")
		b.says("#keys", "Keys and meanings")
		b.press("?")
		b.is("!document.querySelector('#keys').open")
	}
	b.press("?")
	b.says("#keys", "Keys and meanings")
	b.do("document.querySelector('#single').focus()")
	b.press("?")
	b.is("!document.querySelector('#keys').open")
	b.press("?")
	b.press("Escape")
	b.is("!document.querySelector('#keys').open")
}
