package exposition

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// redirectRequest is one request to a host.
type redirectRequest struct{ Method, Host, Path, Password, Cookie, Referer string }

// redirectTo makes the gateway redirect each request with this status to this location, except
// requests for /new. The function that it returns gives the requests since its last call.
func (p *pushTest) redirectTo(code int, to string) (since func() []redirectRequest) {
	var mu sync.Mutex
	var all []redirectRequest
	p.gateway.setAnswer(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		mu.Lock()
		all = append(all, redirectRequest{r.Method, r.Host, r.URL.Path, password, r.Header.Get("Cookie"), r.Header.Get("Referer")})
		mu.Unlock()
		if r.URL.Path == "/new" {
			if r.Method == http.MethodDelete {
				w.WriteHeader(http.StatusAccepted)
			}
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b", Path: "/"})
		w.Header().Set("Location", to)
		w.WriteHeader(code)
	})
	return func() []redirectRequest {
		mu.Lock()
		defer mu.Unlock()
		got := all
		all = nil
		return got
	}
}

// withPassword adds a user and a password to the gateway's URL.
func withPassword(g *Gateway) { g.URL.User = url.UserPassword("push", "s3cret") }

var redirects = []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect}

func keepsMethod(code int) bool {
	return code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect
}

func TestPushRedirectElsewhereGetsNoPassword(t *testing.T) {
	for _, to := range []string{
		"http://other:9091/new", "http://gateway:9092/new", "http://gateway/new", "http://sub.gateway:9091/new", "https://gateway:9091/new",
		"//other/new", "http://a:b@other/new", "http://gateway:9091@other/new", "http://gateway.:9091/new",
	} {
		for _, code := range redirects {
			withPush(t, withPassword, func(t *testing.T, p *pushTest) {
				since := p.redirectTo(code, to)
				testutil.Advance(15 * time.Second)
				got := since()
				testutil.Equal(t, "requests", len(got), 1)
				testutil.Equal(t, "host and password", got[0].Host+" "+got[0].Password, "gateway:9091 s3cret")
				p.wantCounts(t, 1, 1)
				warnings := p.log.Lines("level=WARN", "the redirect to ", "/new is not followed because", "set --push-url to the Pushgateway's address")
				testutil.Equal(t, "warnings", len(warnings), 1)
				testutil.Equal(t, "lines with a password", len(append(p.log.Lines("s3cret"), p.log.Lines("a:b")...)), 0)
			})
		}
	}
}

func TestPushRedirectSameOriginKeepsPassword(t *testing.T) {
	for _, to := range []string{"/new", "http://gateway:9091/new", "HTTP://GATEWAY:9091/new", "http://a:b@gateway:9091/new", "//gateway:9091/new"} {
		for _, code := range redirects {
			withPush(t, withPassword, func(t *testing.T, p *pushTest) {
				since := p.redirectTo(code, to)
				testutil.Advance(15 * time.Second)
				got := since()
				if !keepsMethod(code) {
					testutil.Equal(t, "requests", len(got), 1)
					p.wantCounts(t, 1, 1)
					return
				}
				testutil.Equal(t, "requests", len(got), 2)
				testutil.Equal(t, "method, path and password", got[1].Method+" "+got[1].Path+" "+got[1].Password, "PUT /new s3cret")
				testutil.Equal(t, "cookie", got[1].Cookie, "")
				testutil.Equal(t, "whether the referer has the password", strings.Contains(got[1].Referer, "s3cret"), false)
				p.wantCounts(t, 2, 0)
			})
		}
	}
}

func TestPushRedirectChainIsNotFollowed(t *testing.T) {
	withPush(t, withPassword, func(t *testing.T, p *pushTest) {
		var mu sync.Mutex
		passwords := map[string]string{}
		p.gateway.setAnswer(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			_, passwords[r.Host+r.URL.Path], _ = r.BasicAuth()
			next := map[string]string{group: "/one", "/one": "http://other/two", "/two": "http://gateway:9091/new"}[r.URL.Path]
			http.Redirect(w, r, next, http.StatusTemporaryRedirect)
		})
		testutil.Advance(15 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		testutil.Equal(t, "passwords", passwords, map[string]string{"gateway:9091" + group: "s3cret", "gateway:9091/one": "s3cret"})
		p.wantCounts(t, 1, 1)
	})
}

func TestPushRedirectOfDeletion(t *testing.T) {
	for to, want := range map[string]int{"http://other/new": 1, "/new": 2} {
		withPush(t, func(g *Gateway) { withPassword(g); g.DeleteOnExit = true }, func(t *testing.T, p *pushTest) {
			since := p.redirectTo(http.StatusTemporaryRedirect, to)
			p.stop()
			got := since()
			testutil.Equal(t, "requests", len(got), want)
			for _, h := range got {
				testutil.Equal(t, "request", h.Method+" "+h.Host+" "+h.Password, "DELETE gateway:9091 s3cret")
			}
			testutil.Equal(t, "warnings", len(p.log.Lines("level=WARN", "Failed to delete the metrics", "the redirect to http://other/new")), 2-want)
			testutil.Equal(t, "calls that failed", p.fleet.Stats.Failures(stats.PeerPushgateway), uint64(2-want))
		})
	}
}

func TestPushRedirectWithoutPassword(t *testing.T) {
	for _, to := range []string{"/new", "http://other:1/new", "http://sub.gateway:9091/new"} {
		for _, code := range redirects {
			withPush(t, nil, func(t *testing.T, p *pushTest) {
				since := p.redirectTo(code, to)
				testutil.Advance(15 * time.Second)
				got := since()
				if !keepsMethod(code) {
					testutil.Equal(t, "requests", len(got), 1)
					p.wantCounts(t, 1, 1)
					testutil.Equal(t, "warnings", len(p.log.Lines("level=WARN", "because the push would become a GET")), 1)
					return
				}
				testutil.Equal(t, "requests", len(got), 2)
				testutil.Equal(t, "method, path and password", got[1].Method+" "+got[1].Path+" "+got[1].Password, "PUT /new ")
				p.wantCounts(t, 2, 0)
			})
		}
	}
}

func TestPushRedirectLocationIsTruncated(t *testing.T) {
	withPush(t, withPassword, func(t *testing.T, p *pushTest) {
		p.redirectTo(http.StatusTemporaryRedirect, "http://other/"+strings.Repeat("x", 100_000))
		testutil.Advance(15 * time.Second)
		warnings := p.log.Lines("level=WARN")
		if len(warnings) != 1 || strings.Count(warnings[0], "x") < 200 || len(warnings[0]) > 700 {
			t.Errorf("%d warnings of %d bytes, want one with a truncated location", len(warnings), len(strings.Join(warnings, "")))
		}
	})
}
