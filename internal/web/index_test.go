package web

import (
	"bytes"
	"compress/gzip"
	"html"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/testutil"
)

func TestIndexSecurityHeaders(t *testing.T) {
	h := handler(readyFleet(t))
	for path, contentType := range map[string]string{
		"/":              "text/html; charset=utf-8",
		"/page/main.js":  "text/javascript; charset=utf-8",
		"/page/page.css": "text/css; charset=utf-8",
		"/page/icon.svg": "image/svg+xml",
	} {
		for name, want := range map[string]string{
			"Content-Type": contentType,
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options": "nosniff",
			"Cache-Control":          "no-cache",
			"Vary":                   "Accept-Encoding",
		} {
			testutil.Equal(t, path+": "+name, testutil.Get(t, h, path).Header().Get(name), want)
		}
	}
}

func TestIndexETagAndGzip(t *testing.T) {
	h := handler(readyFleet(t))
	for _, path := range []string{"/", "/page/main.js"} {
		plain, zipped := testutil.Get(t, h, path), testutil.Get(t, h, path, "Accept-Encoding", "gzip")
		testutil.Equal(t, path+": Content-Encoding", zipped.Header().Get("Content-Encoding"), "gzip")
		z, err := gzip.NewReader(zipped.Body)
		testutil.NoError(t, err)
		unzipped, err := io.ReadAll(z)
		testutil.NoError(t, err)
		if !bytes.Equal(unzipped, plain.Body.Bytes()) {
			t.Errorf("GET %s: the compressed response differs from the plain one", path)
		}
		etag, zippedETag := plain.Header().Get("ETag"), zipped.Header().Get("ETag")
		if etag == zippedETag {
			t.Errorf("GET %s: both encodings have the ETag %s", path, etag)
		}
		testutil.Equal(t, path+" again", testutil.Get(t, h, path, "If-None-Match", etag).Code, http.StatusNotModified)
		testutil.Equal(t, path+" again, compressed", testutil.Get(t, h, path, "If-None-Match", zippedETag, "Accept-Encoding", "gzip").Code, http.StatusNotModified)
		testutil.Equal(t, path+", another", testutil.Get(t, h, path, "If-None-Match", `"another"`).Code, http.StatusOK)
	}
}

func TestIndexNamesAllFiles(t *testing.T) {
	h := handler(readyFleet(t))
	named := regexp.MustCompile(`(?:href|src)="(page/[^"]*)"`)
	imported := regexp.MustCompile(`from '\./([^']*)'`)
	files := map[string]bool{}
	for _, m := range named.FindAllStringSubmatch(testutil.Get(t, h, "/").Body.String(), -1) {
		files[m[1]] = true
	}
	for file := range files {
		w := testutil.Get(t, h, "/"+file)
		testutil.Equal(t, file, w.Code, http.StatusOK)
		for _, m := range imported.FindAllStringSubmatch(w.Body.String(), -1) {
			if !files["page/"+m[1]] {
				t.Errorf("%s imports %s, which the page does not name", file, m[1])
			}
		}
	}
	testutil.Equal(t, "whether many files are named", len(files) > 10, true)
	testutil.Equal(t, "status of a file that is not served", testutil.Get(t, h, "/page/index.html").Code, http.StatusNotFound)
}

func TestIndexWithoutScript(t *testing.T) {
	testutil.Golden(t, "pages/index.html", withoutScript(t, handler(readyFleet(t))))
}

func TestIndexSaysWhatIsMissing(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	f.Stats.Etcd.MarkUsed()
	wantText(t, withoutScript(t, handler(f)), "every endpoint in the namespace dynamo",
		"Not ready: etcd is not connected.", "No endpoint is known yet.")
}

func TestIndexSaysWhatIsWatched(t *testing.T) {
	for target, want := range map[fleet.Target]string{
		fleettest.Everything:                "Watching every endpoint in",
		{Component: "backend"}:              "Watching every endpoint of backend in",
		fleet.Target(fleettest.LoadMetrics): "Watching backend/load_metrics in",
	} {
		wantText(t, withoutScript(t, handler(fleettest.New(target, true))), want)
	}
}

func TestIndexShowsUncountedEndpoints(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	f.RecordHit(977, 3, 1)
	wantText(t, withoutScript(t, handler(f)), "unknown/unknown – – – – –")
}

func TestIndexEscapesNames(t *testing.T) {
	const evil = `<script>alert("&")</script>`
	f := fleettest.New(fleettest.Everything, true)
	f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: evil, Name: evil}, ID: 1}, fleet.Registration{NATS: true})
	h := handlerWith(f, func(o *Options) { o.Namespaces = evil })
	page := testutil.Get(t, h, "/").Body.String()
	if strings.Contains(page, "<script>") {
		t.Errorf("a name became a script:\n%s", page)
	}
	wantText(t, html.UnescapeString(page), evil+"/"+evil, "namespace <b>"+evil+"</b>", "<title>"+evil+" · metrics</title>")
}

func TestIndexLinksWork(t *testing.T) {
	h := handler(readyFleet(t))
	links := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(withoutScript(t, h), -1)
	testutil.Equal(t, "links", len(links), 3)
	for _, l := range links {
		testutil.Equal(t, l[1], testutil.Get(t, h, "/"+l[1]).Code, http.StatusOK)
	}
}

// withoutScript returns the part of the page for browsers without JavaScript.
func withoutScript(t *testing.T, h http.Handler) string {
	t.Helper()
	_, rest, _ := strings.Cut(testutil.Get(t, h, "/").Body.String(), "<noscript>\n")
	part, _, found := strings.Cut(rest, "</noscript>")
	if !found {
		t.Fatal("the page has no part for browsers without JavaScript")
	}
	return part
}

// wantText fails the test unless the page, without its tags, contains all of these.
func wantText(t *testing.T, page string, wants ...string) {
	t.Helper()
	text := regexp.MustCompile(`</?(td|th|tr|p|b)[^>]*>`).ReplaceAllString(page, " ")
	text = strings.Join(strings.Fields(text), " ")
	for _, want := range wants {
		if !strings.Contains(text, want) && !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
}
