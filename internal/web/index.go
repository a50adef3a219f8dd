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

// pageFiles are what the page for people is made of, as they stand in the directory:
// there is no build step.
//
//go:embed page/*.css page/*.js page/*.svg page/index.html
var assetFiles embed.FS

// pagePolicy lets the page load its own files, ask the server that it came from, and do
// nothing else.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var indexTemplate = template.Must(template.ParseFS(assetFiles, "page/index.html"))

// page shows people the fleet. Its script draws what the server tells it on /events; to
// those without script it says what is watched, and how many workers there were when the
// fleet was looked at last. It is written once for all who ask until the next look.
func indexHandler(f *fleet.Fleet, namespace string, sample func() monitor.Sample) http.Handler {
	type says struct {
		Namespace, Watched string
		Missing, Modules   []string
		Endpoints          []fleet.EndpointState
	}
	modules := scriptModules()
	var mu sync.Mutex
	var last *document
	var number uint64
	var missing []string
	now := func() (*document, error) {
		s, away := sample(), monitor.Missing(f)
		mu.Lock()
		defer mu.Unlock()
		if last != nil && number == s.Number && slices.Equal(missing, away) {
			return last, nil
		}
		var b bytes.Buffer
		if err := indexTemplate.Execute(&b, says{namespace, targetText(f.Target()), away, modules, s.Endpoints}); err != nil {
			return nil, err
		}
		last, number, missing = newDocument("index.html", b.Bytes()), s.Number, away
		return last, nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := now()
		if err != nil {
			http.Error(w, "the page cannot be written: "+err.Error(), http.StatusInternalServerError)
			return
		}
		d.ServeHTTP(w, r)
	})
}

// pageModules are the scripts that main.js calls for: named in the page, they are loaded
// at once instead of one after the other.
func scriptModules() (names []string) {
	entries, _ := assetFiles.ReadDir("page") // it is in the program
	for _, e := range entries {
		if n := e.Name(); path.Ext(n) == ".js" && n != "theme.js" && n != "main.js" {
			names = append(names, n)
		}
	}
	return names
}

// pageParts answers with the page's files, on /page/.
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

// contentTypes are those of the page's files: the machine's own tables may say otherwise.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// document is a file of the page, or the page itself.
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
			_, _ = z.Write(body) // a buffer takes all
			_ = z.Close()
			return b.Bytes()
		}),
	}
}

// ServeHTTP answers with the document. Browsers keep it, and ask each time whether it is
// still the same: a new version of the program is seen at once.
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
