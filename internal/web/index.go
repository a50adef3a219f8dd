package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
)

// assetFiles are the files of the web page. There is no build step.
//
//go:embed page/*.css page/*.js page/*.svg page/index.html
var assetFiles embed.FS

// contentSecurityPolicy lets the web page load its own files and send requests to its own server,
// and nothing else.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var indexTemplate = template.Must(template.ParseFS(assetFiles, "page/index.html"))

// indexHandler serves the web page. Its script draws the fleet from the stream on /events. Without
// JavaScript it shows what is watched and how many workers there were in the last sample. The page
// is rendered once for all requests until the next sample.
func indexHandler(f *fleet.Fleet, namespace string, sample func() monitor.Sample) http.Handler {
	type indexData struct {
		Namespace, Watched string
		Missing, Modules   []string
		Endpoints          []fleet.EndpointState
	}
	modules := scriptModules()
	var mu sync.Mutex
	var last *document
	var number uint64
	var lastMissing []string
	current := func() (*document, error) {
		s, missing := sample(), monitor.Missing(f)
		mu.Lock()
		defer mu.Unlock()
		if last != nil && number == s.Number && slices.Equal(lastMissing, missing) {
			return last, nil
		}
		var b bytes.Buffer
		if err := indexTemplate.Execute(&b, indexData{namespace, targetText(f.Target()), missing, modules, s.Endpoints}); err != nil {
			return nil, err
		}
		last, number, lastMissing = newDocument("index.html", b.Bytes()), s.Number, missing
		return last, nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := current()
		if err != nil {
			http.Error(w, "the web page cannot be written: "+err.Error(), http.StatusInternalServerError)
			return
		}
		d.ServeHTTP(w, r)
	})
}

// scriptModules returns the scripts that main.js imports. The web page names them, so that a browser
// loads all of them at once instead of one after the other.
func scriptModules() (names []string) {
	entries, _ := assetFiles.ReadDir("page") // embedded
	for _, e := range entries {
		if n := e.Name(); path.Ext(n) == ".js" && n != "theme.js" && n != "main.js" {
			names = append(names, n)
		}
	}
	return names
}

// assetHandler serves the web page's files on /page/.
func assetHandler() http.Handler {
	mux := http.NewServeMux()
	entries, _ := assetFiles.ReadDir("page")
	for _, e := range entries {
		if e.Name() == "index.html" {
			continue
		}
		body, _ := assetFiles.ReadFile("page/" + e.Name())
		mux.Handle("GET /page/"+e.Name(), newDocument(e.Name(), body))
	}
	return mux
}

// contentTypes are the content types of the web page's files. Those of package mime depend on the
// host.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// document is the web page or one of its files.
type document struct {
	contentType, etag string
	body              []byte
	gzipped           func() []byte
}

func newDocument(name string, body []byte) *document {
	sum := sha256.Sum256(body)
	return &document{
		contentType: contentTypes[path.Ext(name)],
		etag:        hex.EncodeToString(sum[:12]),
		body:        body,
		gzipped: sync.OnceValue(func() []byte {
			var b bytes.Buffer
			z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
			_, _ = z.Write(body) // a buffer never fails
			_ = z.Close()
			return b.Bytes()
		}),
	}
}

// ServeHTTP serves the document. Browsers cache it but revalidate it each time, so that a new
// version of the program takes effect at once.
func (d *document) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, body, etag := w.Header(), d.body, d.etag
	if exposition.AcceptsGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		body, etag = d.gzipped(), etag+"-gzip"
	}
	h.Set("Content-Type", d.contentType)
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", `"`+etag+`"`)
	h.Add("Vary", "Accept-Encoding")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func targetText(t fleet.Target) string {
	switch {
	case t.Component == "":
		return "every endpoint"
	case t.Name == "":
		return "every endpoint of " + t.Component
	default:
		return fleet.Endpoint(t).String()
	}
}
