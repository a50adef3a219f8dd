package web

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestWebConfigReloadOtherUsers(t *testing.T) {
	withWebConfig(t, withUser, func(s *webConfigTest) {
		t := s.t
		s.wantStatus(200, "secret")
		s.reload("basic_auth_users:\n  dynamo: $other\n")
		s.wantStatus(401, "secret")
		s.wantStatus(200, "another")
		s.reload("basic_auth_users:\n  other: $other\n")
		s.wantStatus(401, "another")
		testutil.Equal(t, "lines that say that the file was loaded", len(s.logs.Lines("level=INFO", "Loaded the changed web configuration")), 2)
		s.wantProblem("")
	})
}

func TestWebConfigReloadFirstUsers(t *testing.T) {
	withWebConfig(t, "# no users yet\n", func(s *webConfigTest) {
		t := s.t
		s.wantStatus(200, "")
		synctest.Wait()
		testutil.Equal(t, "warnings", len(s.logs.Lines("level=WARN", "requires neither TLS nor a password")), 1)
		s.reload(withUser)
		s.wantStatus(401, "")
		s.wantStatus(200, "secret")
		s.write("")
		testutil.Advance(3 * time.Second)
		s.wantStatus(401, "")
		s.wantProblem("no longer requires a password")
	})
}

func TestWebConfigReloadFirstTLS(t *testing.T) {
	withWebConfig(t, withUser, func(s *webConfigTest) {
		t := s.t
		before := s.client()
		got, _ := s.request(before, "secret")
		testutil.Equal(t, "status without TLS", got, 200)
		s.reload(withUser + withTLS)
		got, _ = s.request(before, "secret") // on the earlier connection
		testutil.Equal(t, "status on a connection without TLS", got, 421)
		s.wantStatus(400, "secret")
		s.wantStatus(401, "", "")
		s.wantStatus(200, "secret", "")
	})
}

func TestWebConfigReloadFirstClientCertificates(t *testing.T) {
	withWebConfig(t, withTLS, func(s *webConfigTest) {
		t := s.t
		without, with := s.client(""), s.client("client")
		for _, c := range []*http.Client{without, with} {
			got, _ := s.request(c, "")
			testutil.Equal(t, "status", got, 200)
		}
		s.reload(withCerts)
		got, _ := s.request(without, "")
		testutil.Equal(t, "status on an earlier connection", got, 421)
		got, _ = s.request(with, "") // the server had not requested its certificate
		testutil.Equal(t, "status on an earlier connection", got, 421)
		s.wantStatus(0, "", "")
		s.wantStatus(200, "", "client")
	})
}

func TestWebConfigReloadOtherCA(t *testing.T) {
	withWebConfig(t, withCerts, func(s *webConfigTest) {
		t := s.t
		with, again := s.client("client"), s.client("named")
		s.request(with, "")
		s.request(again, "")
		old, theirs := s.ca, testutil.NewAuthorityWithCertificates(t)
		authority, err := os.ReadFile(theirs.File("ca.crt"))
		testutil.NoError(t, err)
		writeFile(t, filepath.Join(s.dir, "other.crt"), authority)
		s.reload(strings.Replace(withCerts, "$dir/ca.crt", "other.crt", 1)) // relative to the configuration file
		got, _ := s.request(with, "")
		testutil.Equal(t, "status on an earlier connection", got, 421)
		s.wantStatus(0, "", "client")
		both, err := os.ReadFile(old.File("ca.crt"))
		testutil.NoError(t, err)
		writeFile(t, filepath.Join(s.dir, "other.crt"), append(authority, both...))
		testutil.Advance(time.Second)
		s.wantStatus(200, "", "client")
		got, _ = s.request(again, "")
		testutil.Equal(t, "status on an earlier connection that meets the requirements", got, 200)
	})
}

func TestWebConfigReloadCertificateName(t *testing.T) {
	withWebConfig(t, withCerts, func(s *webConfigTest) {
		t := s.t
		named, other := s.client("named"), s.client("client")
		s.request(named, "")
		s.request(other, "")
		s.reload(withNames)
		got, _ := s.request(named, "")
		testutil.Equal(t, "status with the name", got, 200)
		got, _ = s.request(other, "")
		testutil.Equal(t, "status without the name", got, 421)
		s.wantStatus(200, "", "named")
		s.wantStatus(0, "", "client")
	})
}

func TestWebConfigReloadRenewedCertificate(t *testing.T) {
	withWebConfig(t, withTLS, func(s *webConfigTest) {
		t := s.t
		serial := func() string {
			conn, err := s.Dial(t.Context(), "", "")
			testutil.NoError(t, err)
			c := tls.Client(conn, s.tls(""))
			defer c.Close()
			testutil.NoError(t, c.Handshake())
			return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
		}
		before, kept := serial(), s.client("")
		s.request(kept, "")
		time.Sleep(time.Second)
		s.ca.Issue("server", &x509.Certificate{IPAddresses: s.server().IPAddresses, ExtKeyUsage: s.server().ExtKeyUsage})
		testutil.Advance(time.Second)
		if serial() == before {
			t.Error("the certificate is still the old one")
		}
		got, _ := s.request(kept, "")
		testutil.Equal(t, "status on an earlier connection", got, 200)
		s.wantProblem("")
	})
}

// server returns the server's certificate.
func (s *webConfigTest) server() *x509.Certificate {
	pair, err := tls.LoadX509KeyPair(s.ca.File("server.crt"), s.ca.File("server.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	return pair.Leaf
}
