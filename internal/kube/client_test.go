package kube

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
)

// accountDir is the directory of a service account.
type accountDir struct {
	t   *testing.T
	dir string
}

func (a accountDir) write(name, content string) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// trust writes the certificate of a server to ca.crt.
func (a accountDir) trust(web *httptest.Server) {
	a.t.Helper()
	a.write("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})))
}

// inCluster returns a client with the credentials of a pod, for a server with TLS.
func inCluster(t *testing.T, web *httptest.Server) (accountDir, *Client) {
	t.Helper()
	a := accountDir{t, t.TempDir()}
	a.write("token", "first\n")
	a.write("namespace", "team-a\n")
	a.trust(web)
	c, err := NewInCluster(podEnv(t, web), a.dir)
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

// podEnv returns the environment of a pod.
func podEnv(t *testing.T, web *httptest.Server) func(string) string {
	t.Helper()
	u, err := url.Parse(web.URL)
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": u.Hostname(), "KUBERNETES_SERVICE_PORT": u.Port()}[name]
	}
}

func serveTLS(t *testing.T, s *kubetest.Server) *httptest.Server {
	t.Helper()
	web := httptest.NewUnstartedServer(s)
	web.EnableHTTP2 = true // as API servers do
	web.StartTLS()
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	return web
}

func TestClientReloadsToken(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	s.RequireToken("first")
	s.Put(kubetest.WorkerMetadata, object("a", 1))
	a, c := inCluster(t, serveTLS(t, s))
	f := startListWatch(t, c, things)
	f.waitValues(map[string]int{"a": 1})
	s.RequireToken("second") // before the file has that token
	f.waitError("401")
	a.write("token", "second")
	s.Put(kubetest.WorkerMetadata, object("a", 2))
	f.waitValues(map[string]int{"a": 2})
}

func TestClientReloadsAuthority(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	s.Put(kubetest.WorkerMetadata, object("a", 1))
	old := httptest.NewUnstartedServer(s)
	address := old.Listener.Addr().String()
	old.StartTLS()
	a, c := inCluster(t, old)
	f := startListWatch(t, c, things)
	f.waitValues(map[string]int{"a": 1})
	s.EndWatches()
	old.CloseClientConnections()
	old.Close()

	web := httptest.NewUnstartedServer(s)
	web.Listener.Close()
	testutil.Until(t, func() (err error) {
		web.Listener, err = net.Listen("tcp", address)
		return err
	})
	authority := testutil.NewAuthorityWithCertificates(t)
	pair, err := tls.LoadX509KeyPair(authority.File("server.crt"), authority.File("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	web.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	web.StartTLS()
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	f.waitError("certificate")
	ca, err := os.ReadFile(authority.File("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	a.write("ca.crt", string(ca))
	s.Put(kubetest.WorkerMetadata, object("a", 2))
	f.waitValues(map[string]int{"a": 2})
}

func TestClientReloadsFilesEachMinute(t *testing.T) {
	t.Parallel()
	s := new(kubetest.Server)
	a, c := inCluster(t, serveTLS(t, s))
	a.write("token", "second")
	if token, _ := c.credentials(); token != "first" {
		t.Errorf("token %q, want the first", token)
	}
	c.loadedAt = c.loadedAt.Add(-reloadInterval - time.Second)
	if token, _ := c.credentials(); token != "second" {
		t.Errorf("token %q, want the second", token)
	}
	if err := os.Remove(filepath.Join(a.dir, "token")); err != nil {
		t.Fatal(err)
	}
	c.loadedAt = time.Time{}
	if token, _ := c.credentials(); token != "second" {
		t.Errorf("token %q without a file, want what was read before", token)
	}
}

func TestClientFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed to %s with %q", r.URL, r.Header.Get("Authorization"))
	}))
	t.Cleanup(elsewhere.Close)
	web := httptest.NewTLSServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	t.Cleanup(web.Close)
	_, c := inCluster(t, web)
	f := startListWatch(t, c, things)
	f.waitError("302 Found")
}

func TestNewInClusterErrors(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(new(kubetest.Server))
	t.Cleanup(web.Close)
	none := func(string) string { return "" }
	garbled := accountDir{t, t.TempDir()}
	garbled.write("token", "t")
	garbled.write("ca.crt", "no certificate")
	for name, c := range map[string]struct {
		getenv func(string) string
		dir    string
		want   string
	}{
		"outside of a cluster": {none, t.TempDir(), "KUBERNETES_SERVICE_HOST is not set: outside of a cluster want --kubernetes-api"},
		"no token":             {podEnv(t, web), t.TempDir(), "token: no such file"},
		"no certificate":       {podEnv(t, web), garbled.dir, "ca.crt holds no certificate"},
	} {
		if _, err := NewInCluster(c.getenv, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestNewInClusterIPv6Server(t *testing.T) {
	t.Parallel()
	getenv := func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}[name]
	}
	a := accountDir{t, t.TempDir()}
	a.write("token", "t")
	if c, err := NewInCluster(getenv, a.dir); err != nil || c.Server() != "https://[fd00::1]:443" {
		t.Errorf("server %v, %v, want the address in brackets", c, err)
	}
}

func TestPodNamespace(t *testing.T) {
	t.Parallel()
	a := accountDir{t, t.TempDir()}
	if ns := PodNamespace(a.dir); ns != "" {
		t.Errorf("namespace %q without a file", ns)
	}
	a.write("namespace", "team-a\n")
	if ns := PodNamespace(a.dir); ns != "team-a" {
		t.Errorf("namespace %q, want team-a", ns)
	}
}

func TestNewRejectsInvalidURL(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "localhost:8001", "ftp://localhost", "http://", "http://a?b=c", "http://user:secret@localhost", "http://a b"} {
		if _, err := New(s); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("New(%q): %v", s, err)
		}
	}
	if c := newClient(t, "http://localhost:8001/prefix/"); c.Server() != "http://localhost:8001/prefix" {
		t.Errorf("server %q", c.Server())
	}
}
