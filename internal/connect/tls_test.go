package connect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// authority is a certificate authority in a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue writes name.crt and name.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, _ := x509.MarshalECPrivateKey(key)
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "EC PRIVATE KEY", keyDER)
	cert, _ := x509.ParseCertificate(der)
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func TestEtcdTakesCertificates(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue("server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	a.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	s := startEtcd(t, func(c *embed.Config) {
		c.ListenClientUrls[0].Scheme = "https"
		c.AdvertiseClientUrls = c.ListenClientUrls
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = a.file("server.crt"), a.file("server.key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = a.file("ca.crt"), true
	})
	if got := checkEtcd(t, s.Endpoint(), env("ETCD_AUTH_CA", a.file("ca.crt"),
		"ETCD_AUTH_CLIENT_CERT", a.file("client.crt"), "ETCD_AUTH_CLIENT_KEY", a.file("client.key"))); got != "" {
		t.Error(got)
	}
	if got := checkEtcd(t, s.Endpoint(), env("ETCD_AUTH_CA", a.file("ca.crt"))); !strings.HasPrefix(got, "put: ") {
		t.Errorf("without a client certificate: got %q, want a failed put", got)
	}
	if got := checkEtcd(t, s.Endpoint(), env()); !strings.HasPrefix(got, "put: ") {
		t.Errorf("with the system's authorities: got %q, want a failed put", got)
	}
}

func TestUnusableCertificatesAreNamed(t *testing.T) {
	a := newAuthority(t)
	missing, junk := a.file("missing"), a.file("junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{missing, junk} {
		if got := checkEtcd(t, "https://h", env("ETCD_AUTH_CA", file)); !strings.HasPrefix(got, "ETCD_AUTH_CA: ") || !strings.Contains(got, file) {
			t.Errorf("got %q", got)
		}
		got := checkEtcd(t, "https://h", env("ETCD_AUTH_CLIENT_CERT", file, "ETCD_AUTH_CLIENT_KEY", a.file("ca.key")))
		if !strings.HasPrefix(got, "ETCD_AUTH_CLIENT_CERT, ETCD_AUTH_CLIENT_KEY: ") {
			t.Errorf("got %q", got)
		}
	}
}

func TestCertificatesForPlainHTTPAreMentioned(t *testing.T) {
	a := newAuthority(t)
	log, journal := newLog()
	ec, err := Etcd(t.Context(), "http://127.0.0.1:1", env("ETCD_AUTH_CA", a.file("ca.crt")), log)
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	if journal.count("without TLS") != 1 {
		t.Errorf("got:\n%s", journal)
	}
}
