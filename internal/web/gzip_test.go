package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/wire/wiretest"
)

// The cases are from RFC 9110, sections 12.4.2 and 12.5.3, on each path that compresses and on a
// standby.
func TestAcceptsGzipOnEveryPath(t *testing.T) {
	f := wiretest.Original(t)
	standby := exposition.NewMetrics(exposition.Collector{Fleet: f, Build: build, Now: func() time.Time { return served }, Standby: func() bool { return true }})
	leads, standsBy := handler(f), handlerWith(f, func(o *Options) { o.Metrics = standby })
	for _, c := range []struct {
		accept []string // headers
		want   bool
	}{
		{nil, false}, {[]string{""}, false},
		{[]string{"gzip"}, true}, {[]string{"GZIP"}, true}, {[]string{"x-gzip"}, true}, {[]string{" \tgzip\t "}, true}, {[]string{",,gzip,"}, true},
		{[]string{"identity"}, false}, {[]string{"br"}, false}, {[]string{"gzipped"}, false}, {[]string{"xgzip, gzip2"}, false}, {[]string{"deflate, zstd"}, false},
		{[]string{"gzip;q=0"}, false}, {[]string{"gzip;q=0."}, false}, {[]string{"gzip;q=0.0"}, false}, {[]string{"gzip;q=0.00"}, false},
		{[]string{"gzip; q=0.000"}, false}, {[]string{"gzip ;\tQ=0"}, false}, {[]string{"GZIP;q=0 , br"}, false},
		{[]string{"gzip;q=0.001"}, true}, {[]string{"gzip;q=0.1"}, true}, {[]string{"gzip;q=1."}, true}, {[]string{"gzip;q=1"}, true}, {[]string{"gzip; Q=1.000 "}, true},
		{[]string{"deflate, GZIP;q=1.0"}, true}, {[]string{"br;q=1,gzip;q=0.5"}, true}, {[]string{"gzip;q=0.5, *;q=0"}, true}, {[]string{"*;q=0, gzip"}, true},
		{[]string{"*"}, true}, {[]string{"*;q=0.5"}, true}, {[]string{"*;q=0"}, false}, {[]string{"*;q=0."}, false}, {[]string{"*, gzip;q=0"}, false},
		{[]string{"identity, *;q=0"}, false}, {[]string{"identity;q=0.5, gzip"}, true}, {[]string{"identity;q=0.5, gzip;q=0.2"}, false}, {[]string{"identity, gzip"}, true},
		{[]string{"identity;q=0, gzip;q=0.2"}, true}, {[]string{"identity;q=0.5, *;q=0.2"}, false},
		{[]string{"br", "gzip"}, true}, {[]string{"gzip", "br"}, true}, {[]string{"br", "gzip;q=0"}, false}, {[]string{"*", "gzip;q=0."}, false}, {[]string{"br, deflate", "identity"}, false},
		// An invalid weight counts as 0.
		{[]string{"gzip;q="}, false}, {[]string{"gzip;q"}, false}, {[]string{"gzip;"}, false}, {[]string{"gzip;q=x"}, false}, {[]string{"gzip;q=-1"}, false}, {[]string{"gzip;q=1.5"}, false},
		{[]string{"gzip;q=.5"}, false}, {[]string{"gzip;q=0.0000"}, false}, {[]string{"gzip;q= 0"}, false}, {[]string{"gzip;level=9"}, false},
	} {
		for _, of := range []struct {
			path string
			http.Handler
		}{{"/metrics", leads}, {"/", leads}, {"/page/main.js", leads}, {"/metrics", standsBy}} {
			r := httptest.NewRequest(http.MethodGet, of.path, nil)
			r.Header["Accept-Encoding"] = c.accept
			w := httptest.NewRecorder()
			of.ServeHTTP(w, r)
			want := map[bool]string{true: "gzip"}[c.want]
			if w.Code != http.StatusOK || w.Header().Get("Content-Encoding") != want || !strings.Contains(w.Header().Get("Vary"), "Accept-Encoding") {
				t.Errorf("%s for %q: %d, encoding %q, Vary %q, want %q", of.path, c.accept, w.Code, w.Header().Get("Content-Encoding"), w.Header().Get("Vary"), want)
			}
		}
	}
}
