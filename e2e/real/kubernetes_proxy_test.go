//go:build real

package real

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// kubectlProxy is a stand-in for kubectl proxy, which the program uses outside of a
// cluster: it takes plain HTTP requests without credentials and sends them to the API
// server with its own. It records requests and responses, and can be down.
type kubectlProxy struct {
	web *httptest.Server
	to  *url.URL

	mu        sync.Mutex
	transport http.RoundTripper // to the API server, with a certificate
	away      bool
	before    func(*http.Request) // called before a request is forwarded; may be nil
	log       []exchange
}

// exchange is a request with its response.
type exchange struct {
	status       int
	method, path string
	query        url.Values
}

func (e exchange) matches(status int, method, pathEnd string) bool {
	return e.status == status && e.method == method && strings.HasSuffix(e.path, pathEnd)
}

func newKubectlProxy(t *testing.T, server string, way http.RoundTripper) *kubectlProxy {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &kubectlProxy{to: to, transport: way}
	p.web = httptest.NewServer(p)
	t.Cleanup(func() { p.web.CloseClientConnections(); p.web.Close() })
	return p
}

// ServeHTTP implements http.Handler.
func (p *kubectlProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	way, away, before := p.transport, p.away, p.before
	p.mu.Unlock()
	if away {
		panic(http.ErrAbortHandler) // closes the connection
	}
	if before != nil {
		before(r)
	}
	(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(p.to) },
		Transport: way,
		ModifyResponse: func(answer *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.log = append(p.log, exchange{answer.StatusCode, r.Method, r.URL.Path, r.URL.Query()})
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}).ServeHTTP(w, r)
}

// setAway ends all requests and refuses new ones, or accepts them again.
func (p *kubectlProxy) setAway(away bool) {
	p.mu.Lock()
	p.away = away
	p.mu.Unlock()
	if away {
		p.web.CloseClientConnections()
	}
}

// setTransport changes the transport to the API server.
func (p *kubectlProxy) setTransport(way http.RoundTripper) {
	p.mu.Lock()
	p.transport = way
	p.mu.Unlock()
	p.web.CloseClientConnections()
}

// setHook sets a function that is called before each request is forwarded.
func (p *kubectlProxy) setHook(before func(*http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

// asked returns the queries for a resource's collection that contained all these parts, and
// had this status.
func (p *kubectlProxy) asked(status int, resource string, parts ...string) (queries []url.Values) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.log {
		lacks := func(part string) bool { return !e.query.Has(part) }
		if e.matches(status, http.MethodGet, "/"+resource) && !slices.ContainsFunc(parts, lacks) {
			queries = append(queries, e.query)
		}
	}
	return queries
}

// count returns how many requests whose path has this end had this status.
func (p *kubectlProxy) count(status int, method, pathEnd string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.log {
		if e.matches(status, method, pathEnd) {
			n++
		}
	}
	return n
}
