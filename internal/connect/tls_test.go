package connect

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"

	"dynamo-metrics/internal/testutil"

	"go.etcd.io/etcd/server/v3/embed"
)

func TestEtcdTLSCertificates(t *testing.T) {
	t.Parallel()
	a := testutil.NewAuthority(t)
	a.Issue("server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	a.Issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	s := startEtcd(t, func(c *embed.Config) {
		c.ListenClientUrls[0].Scheme = "https"
		c.AdvertiseClientUrls = c.ListenClientUrls
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = a.File("server.crt"), a.File("server.key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = a.File("ca.crt"), true
	})
	if got := checkEtcd(t, s.Endpoint(), env("ETCD_AUTH_CA", a.File("ca.crt"),
		"ETCD_AUTH_CLIENT_CERT", a.File("client.crt"), "ETCD_AUTH_CLIENT_KEY", a.File("client.key"))); got != "" {
		t.Error(got)
	}
	if got := checkEtcd(t, s.Endpoint(), env("ETCD_AUTH_CA", a.File("ca.crt"))); !strings.HasPrefix(got, "put: ") {
		t.Errorf("without a client certificate: got %q, want a failed put", got)
	}
	if got := checkEtcd(t, s.Endpoint(), env()); !strings.HasPrefix(got, "put: ") {
		t.Errorf("with the system's authorities: got %q, want a failed put", got)
	}
}

func TestEtcdTLSNamesUnusableFiles(t *testing.T) {
	a := testutil.NewAuthority(t)
	missing, junk := a.File("missing"), a.File("junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{missing, junk} {
		if got := checkEtcd(t, "https://h", env("ETCD_AUTH_CA", file)); !strings.HasPrefix(got, "ETCD_AUTH_CA: ") || !strings.Contains(got, file) {
			t.Errorf("got %q", got)
		}
		got := checkEtcd(t, "https://h", env("ETCD_AUTH_CLIENT_CERT", file, "ETCD_AUTH_CLIENT_KEY", a.File("ca.key")))
		if !strings.HasPrefix(got, "ETCD_AUTH_CLIENT_CERT, ETCD_AUTH_CLIENT_KEY: ") {
			t.Errorf("got %q", got)
		}
	}
}

func TestEtcdTLSWarnsOfPlainHTTP(t *testing.T) {
	a := testutil.NewAuthority(t)
	log, journal := testutil.NewLog()
	ec, err := DialEtcd(t.Context(), "http://127.0.0.1:1", env("ETCD_AUTH_CA", a.File("ca.crt")), log)
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	if journal.Count("without TLS") != 1 {
		t.Errorf("got:\n%s", journal)
	}
}

func TestEtcdTLSErrorIsExplained(t *testing.T) {
	t.Parallel()
	a, other := testutil.NewAuthorityWithCertificates(t), testutil.NewAuthorityWithCertificates(t)
	s := startEtcd(t, func(c *embed.Config) {
		c.ListenClientUrls[0].Scheme = "https"
		c.AdvertiseClientUrls = c.ListenClientUrls
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = a.File("server.crt"), a.File("server.key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = a.File("ca.crt"), true
	})
	plain := startEtcd(t, nil)
	pair := func(of *testutil.Authority) []string {
		return []string{etcdCA, a.File("ca.crt"), etcdCert, of.File("client.crt"), etcdKey, of.File("client.key")}
	}
	for name, c := range map[string]struct {
		endpoints string
		env       []string
		want      string // empty: no error
	}{
		"right":                         {s.Endpoint(), pair(a), ""},
		"another authority":             {s.Endpoint(), []string{etcdCA, other.File("ca.crt")}, "(" + etcdCA},
		"the system's authorities":      {s.Endpoint(), nil, "(" + etcdCA},
		"no certificate":                {s.Endpoint(), []string{etcdCA, a.File("ca.crt")}, "tls: certificate required (" + etcdCert},
		"a client of another authority": {s.Endpoint(), pair(other), "(" + etcdCert},
		"a server without TLS":          {strings.Replace(plain.Endpoint(), "http", "https", 1), pair(a), "(is it a server with TLS?)"},
		"without TLS":                   {plain.Endpoint(), pair(a), ""},
		"no server":                     {"https://127.0.0.1:1", pair(a), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := EtcdTLSError(t.Context(), c.endpoints, env(c.env...)); err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got %q, want %q in it", got, c.want)
			}
			if c.want == "" {
				return
			}
			log, journal := testutil.NewLog()
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				DialEtcd(ctx, c.endpoints, env(append(c.env, etcdUser, "u", etcdPass, "secret")...), log)
			}()
			defer func() { cancel(); <-ended }()
			testutil.Until(t, journal.HasCount(c.want, 1)) // a slow machine may first log that no server answers
		})
	}
}
