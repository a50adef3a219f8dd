package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func webConfig(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, path, []byte(content))
	return path
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate makes a self-signed certificate for 127.0.0.1, and returns it with a pool that trusts
// it.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "metrics"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "metrics.crt"), filepath.Join(dir, "metrics.key")
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	writeFile(t, certFile, public)
	writeFile(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(public)
	return certFile, keyFile, pool
}

// listen runs Serve on a real port of this host until the test ends.
func listen(t *testing.T, webConfig string) (addr string, logs *testutil.Log) {
	t.Helper()
	config, err := ReadConfig(webConfig)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	log, logs := testutil.NewDebugLog()
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, handler(readyFleet(t)), config, log) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
			t.Errorf("%s is still open", l.Addr())
		}
	})
	return l.Addr().String(), logs
}

// fetch returns the status and the body of a response.
func fetch(t *testing.T, client *http.Client, r *http.Request) (int, string) {
	t.Helper()
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func request(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServeOnAPort(t *testing.T) {
	addr, logs := listen(t, "")
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	status, body := fetch(t, client, request(t, "http://"+addr+"/-/ready"))
	testutil.Equal(t, "status", status, http.StatusOK)
	testutil.Equal(t, "body", body, "ready\n")
	// The log need not say that TLS is off, because that is the default.
	testutil.Equal(t, "lines of the log", len(logs.Lines("TLS")), 0)
}

// hash is the bcrypt hash of "secret".
const hash = "$2a$04$BWSdB/BnnmmxHeExxmRRi.cPwBEWp.R.l7p4.VPdlMKQNnuH/0HzW"

func TestServeWithTLSAndBasicAuth(t *testing.T) {
	certFile, keyFile, pool := certificate(t)
	addr, logs := listen(t, webConfig(t, `
tls_server_config:
  cert_file: `+certFile+`
  key_file: `+keyFile+`
basic_auth_users:
  dynamo: `+hash+`
`))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()

	for _, c := range []struct {
		user, password string
		want           int
	}{
		{"", "", http.StatusUnauthorized},
		{"dynamo", "wrong", http.StatusUnauthorized},
		{"other", "secret", http.StatusUnauthorized},
		{"dynamo", "secret", http.StatusOK},
	} {
		for _, path := range paths {
			r := request(t, "https://"+addr+path)
			if c.user != "" {
				r.SetBasicAuth(c.user, c.password)
			}
			status, body := fetch(t, client, r)
			testutil.Equal(t, path+" for "+c.user+":"+c.password, status, c.want)
			if c.want != http.StatusOK && strings.Contains(body, "llm_") {
				t.Errorf("%s for %s: the metrics are served:\n%s", path, c.user, body)
			}
		}
	}
	status, _ := fetch(t, client, request(t, "http://"+addr+"/metrics"))
	testutil.Equal(t, "without TLS", status, http.StatusBadRequest)
	testutil.Equal(t, "lines of the log about TLS", len(logs.Lines("TLS is enabled")), 1)
	testutil.Equal(t, "lines of the log with a password", len(append(logs.Lines("secret"), logs.Lines("wrong")...)), 0)
}
