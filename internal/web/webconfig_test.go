package web

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/testutil"

	"golang.org/x/crypto/bcrypt"
)

// webConfigTest is a running Serve with a web configuration that can change.
type webConfigTest struct {
	*testServer
	t      *testing.T
	config *Config
	logs   *testutil.Log
	ca     *testutil.Authority // has issued the certificates server, client and named
	dir    string
	other  string // a hash of "another"
}

// withWebConfig runs a test in a synctest bubble with this web configuration. In its text, $dir is
// the directory of the authority's files and $other the hash of another password.
func withWebConfig(t *testing.T, text string, test func(*webConfigTest), handlers ...http.Handler) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		other, err := bcrypt.GenerateFromPassword([]byte("another"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		s := &webConfigTest{t: t, ca: testutil.NewAuthorityWithCertificates(t), dir: t.TempDir(), other: string(other)}
		s.ca.Issue("named", &x509.Certificate{DNSNames: []string{"prometheus"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		s.write(text)
		if s.config, err = ReadConfig(s.file()); err != nil {
			t.Fatal(err)
		}
		handlers = append(handlers, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
		log, logs := testutil.NewDebugLog()
		s.logs = logs
		s.testServer = startServerWith(t, handlers[0], s.config, log)
		test(s)
	})
}

func (s *webConfigTest) file() string { return filepath.Join(s.dir, "web.yml") }

// write writes the web configuration in place.
func (s *webConfigTest) write(text string) {
	s.t.Helper()
	writeFile(s.t, s.file(), []byte(strings.NewReplacer("$dir", s.ca.Dir, "$other", s.other).Replace(text)))
}

// reload writes the web configuration, and waits for the second within which it must be loaded.
func (s *webConfigTest) reload(text string) {
	s.t.Helper()
	s.write(text)
	testutil.Advance(time.Second)
}

// client returns a client with its own connections. It uses TLS if a certificate is named. An empty
// name means TLS without a client certificate.
func (s *webConfigTest) client(with ...string) *http.Client {
	s.t.Helper()
	transport := &http.Transport{DialContext: s.Dial}
	if len(with) > 0 {
		transport.TLSClientConfig = s.tls(with[0])
		transport.ForceAttemptHTTP2 = true
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (s *webConfigTest) tls(with string) *tls.Config {
	s.t.Helper()
	authority, err := os.ReadFile(s.ca.File("ca.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1"}
	c.RootCAs.AppendCertsFromPEM(authority)
	if with != "" {
		pair, err := tls.LoadX509KeyPair(s.ca.File(with+".crt"), s.ca.File(with+".key"))
		if err != nil {
			s.t.Fatal(err)
		}
		// Send the certificate whichever CAs the server asks for.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return c
}

// request returns the status and the body of a response, or 0 and the error if there is none.
func (s *webConfigTest) request(c *http.Client, password string) (int, string) {
	s.t.Helper()
	scheme := "http"
	if c.Transport.(*http.Transport).TLSClientConfig != nil {
		scheme = "https"
	}
	r := request(s.t, scheme+"://metrics/")
	if password != "" {
		r.SetBasicAuth("dynamo", password)
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// wantStatus fails the test unless a new connection with these certificates, or none, and this
// password gets this status.
func (s *webConfigTest) wantStatus(want int, password string, with ...string) {
	s.t.Helper()
	c := s.client(with...)
	if got, body := s.request(c, password); got != want {
		s.t.Errorf("with the password %q and the certificates %q: %d %s, want %d", password, with, got, body, want)
	}
	c.CloseIdleConnections()
}

// wantProblem fails the test unless the configuration's problem contains these words and was logged
// once. Empty words mean that there is no problem.
func (s *webConfigTest) wantProblem(words string) {
	s.t.Helper()
	times := 1
	if words == "" {
		times = 0
	}
	if got := s.config.Problem(); !strings.Contains(got, words) || (got == "") != (words == "") {
		s.t.Errorf("problem %q, want %q", got, words)
	}
	testutil.Equal(s.t, "warnings", len(s.logs.Lines("level=WARN", "The web configuration cannot be used")), times)
}

const (
	withUser     = "basic_auth_users:\n  dynamo: " + hash + "\n"
	withTLS      = "tls_server_config:\n  cert_file: $dir/server.crt\n  key_file: $dir/server.key\n"
	withNames    = withTLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: $dir/ca.crt\n  client_allowed_sans: [prometheus]\n"
	withCerts    = withTLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: $dir/ca.crt\n"
	anyCert      = withTLS + "  client_auth_type: RequireAnyClientCert\n"
	optionalCert = withTLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: $dir/ca.crt\n"
)

func TestWebConfigLosingPasswordIsRefused(t *testing.T) {
	for text, why := range map[string]string{
		"":                                    "no longer requires a password",
		"# to be filled\n":                    "no longer requires a password",
		"basic_auth_users:\n":                 "no longer requires a password",
		"basic_auth_users: {}\n":              "no longer requires a password",
		"tls_server_config: {}\n":             "no longer requires a password",
		withCerts:                             "no longer requires a password",
		"basic_auth_us":                       "cannot unmarshal",
		"{":                                   "yaml",
		"basic_auth_users: {dynamo: x}":       "hash",
		withUser[:len(withUser)-8]:            "hash", // half written
		withUser + "rate_limit: {a: 1}":       "field a not found",
		withUser + withUser:                   "already set",
		withUser + strings.Repeat(" ", 1<<20): "has more than 1048576 bytes",
		withUser + "tls_server_config: {cert_file: absent.crt, key_file: absent.key}": "cert_file: stat",
		withUser + "http_server_config: {headers: {X-Frame-Options: no}}":             "X-Frame-Options",
		withUser + withTLS + "  client_auth_type: Never\n":                            "Never",
		withUser + strings.Replace(withTLS, "server.key", "client.key", 1):            "private key does not match",
		withUser + strings.Replace(withCerts, "$dir/ca.crt", "$dir/client.key", 1):    "no certificate can be read",
	} {
		withWebConfig(t, withUser, func(s *webConfigTest) {
			t := s.t
			s.write(text)
			for range 30 { // three seconds
				testutil.Advance(100 * time.Millisecond)
				s.wantStatus(401, "")
				s.wantStatus(401, "wrong")
				s.wantStatus(200, "secret")
			}
			s.wantProblem(why)
			s.reload(withUser)
			testutil.Equal(t, "problem after the file is restored", s.config.Problem(), "")
			testutil.Equal(t, "lines that say so", len(s.logs.Lines("level=INFO", "matches the configuration in force again")), 1)
			testutil.Equal(t, "lines with a password", len(s.logs.Lines("secret")), 0)
		})
	}
}

func TestWebConfigUnreadableStaysInForce(t *testing.T) {
	for what, change := range map[string]func(path string) error{
		"no such file":        os.Remove,
		"is a directory":      func(path string) error { os.Remove(path); return os.Mkdir(path, 0o700) },
		"too many levels":     func(path string) error { os.Remove(path); return os.Symlink(path, path) },
		"is a pipe":           func(path string) error { os.Remove(path); return syscall.Mkfifo(path, 0o600) },
		"requires a password": func(path string) error { os.Remove(path); return os.Symlink("/dev/null", path) },
		"more than 1048576":   func(path string) error { os.Remove(path); return os.Symlink("/dev/zero", path) },
	} {
		withWebConfig(t, withUser, func(s *webConfigTest) {
			t := s.t
			if err := change(s.file()); err != nil {
				t.Fatal(err)
			}
			testutil.Advance(3 * time.Second)
			s.wantStatus(401, "")
			s.wantStatus(200, "secret")
			s.wantProblem(what)
		})
	}
}

func TestWebConfigWeakerTLSIsRefused(t *testing.T) {
	for _, c := range []struct{ from, to, why string }{
		{withTLS, "", "no longer requires TLS"},
		{withTLS, "http_server_config: {http2: false}", "no longer requires TLS"},
		{withCerts, "", "no longer requires TLS"},
		{withCerts, withTLS, "no longer requires a client certificate"},
		{withCerts, anyCert, "no longer requires a client certificate"},
		{withCerts, optionalCert, "no longer requires a client certificate"},
		{withCerts, withUser, "no longer requires TLS"},
		{withCerts, withTLS + withUser, "no longer requires a client certificate"},
		{withNames, withCerts, "no longer requires a name"},
		{anyCert, withTLS, "no longer requires a client certificate"},
		{anyCert, optionalCert, "no longer requires a client certificate"},
	} {
		withWebConfig(t, c.from, func(s *webConfigTest) {
			s.write(c.to)
			for range 3 {
				testutil.Advance(time.Second)
				s.wantStatus(400, "")
				s.wantStatus(200, "", "named")
				if strings.Contains(c.from, "client_auth_type") {
					s.wantStatus(0, "", "")
				}
				if c.from == withNames {
					s.wantStatus(0, "", "client")
				}
			}
			s.wantProblem(c.why)
		})
	}
}

func TestWebConfigReadsNamedFilesWhole(t *testing.T) {
	for file, why := range map[string]string{"server.crt": "PEM", "server.key": "PEM", "ca.crt": "no certificate can be read"} {
		for _, gone := range []bool{false, true} {
			withWebConfig(t, withCerts, func(s *webConfigTest) {
				t := s.t
				path := s.ca.File(file)
				whole, err := os.ReadFile(path)
				testutil.NoError(t, err)
				want := why
				if testutil.NoError(t, os.Truncate(path, 20)); gone {
					testutil.NoError(t, os.Remove(path))
					want = "no such file"
				}
				testutil.Advance(3 * time.Second)
				if file != "ca.crt" { // the client reads that file, too
					s.wantStatus(200, "", "client")
				}
				s.wantProblem(want)
				writeFile(t, path, whole)
				testutil.Advance(time.Second)
				s.wantStatus(200, "", "client")
				s.wantStatus(0, "", "")
				testutil.Equal(t, "problem", s.config.Problem(), "")
			})
		}
	}
}

// The test rewrites the same file in place, so that it is sometimes empty, sometimes partial and
// sometimes whole.
func TestWebConfigHalfWrittenChangesNothing(t *testing.T) {
	withWebConfig(t, withUser, func(s *webConfigTest) {
		t := s.t
		random := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			s.write(withUser[:[]int{0, random.IntN(len(withUser)), len(withUser)}[random.IntN(3)]])
			testutil.Advance(time.Duration(random.IntN(150)) * time.Millisecond)
			if random.IntN(10) == 0 {
				s.wantStatus(401, "")
				s.wantStatus(200, "secret")
			}
		}
		s.wantProblem("")
		testutil.Equal(t, "lines of the log", s.logs.Lines("web configuration"), nil)
	})
}

func TestWebConfigPasswordChangeEndsStreams(t *testing.T) {
	stream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	withWebConfig(t, withUser, func(s *webConfigTest) {
		t := s.t
		r := request(t, "http://metrics/")
		r.SetBasicAuth("dynamo", "secret")
		resp, err := s.client().Do(r)
		testutil.NoError(t, err)
		defer resp.Body.Close()
		ended := make(chan struct{})
		go func() { io.Copy(io.Discard, resp.Body); close(ended) }()
		over := func() bool {
			synctest.Wait()
			select {
			case <-ended:
				return true
			default:
				return false
			}
		}
		s.reload(withUser + "http_server_config: {headers: {X-Frame-Options: deny}}\n")
		testutil.Equal(t, "whether another header ends the response", over(), false)
		s.reload("basic_auth_users: {dynamo: $other}\n")
		testutil.Equal(t, "whether another password ends the response", over(), true)
	}, stream)
}

func TestWebConfigUnusableIsReadTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, text := range []string{"", withUser[:10], withUser[:40]} {
			path := webConfig(t, text)
			time.AfterFunc(100*time.Millisecond, func() { writeFile(t, path, []byte(withUser)) })
			c, err := ReadConfig(path)
			if err != nil || c.current.Load().users == nil {
				t.Errorf("%q, which is completed soon: error %v, want the whole configuration", text, err)
			}
		}
	})
}

func TestWebConfigErrorsAtStart(t *testing.T) {
	synctest.Test(t, testWebConfigErrorsAtStart)
}

func testWebConfigErrorsAtStart(t *testing.T) {
	for what, content := range map[string]string{
		"field tls_servr_config not found": "tls_servr_config: {}\n",
		"cert_file: stat ":                 "tls_server_config: {cert_file: missing.crt, key_file: missing.key}\n",
		"hash":                             "basic_auth_users: {dynamo: secret}\n",
		"cannot unmarshal !!seq into":      "basic_auth_users: {dynamo: [secret]}\n",
		"yaml":                             "{",
	} {
		c, err := ReadConfig(webConfig(t, content))
		if c != nil || err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line with %q", content, err, what)
		}
	}
	if _, err := ReadConfig(filepath.Join(t.TempDir(), "absent.yml")); err == nil {
		t.Error("no error for a missing file")
	}
	if c, err := ReadConfig(""); c != nil || err != nil || c.Problem() != "" {
		t.Errorf("without a file: %v, %v", c, err)
	}
}

func TestWebConfigPasswordMemoryIsBounded(t *testing.T) {
	withWebConfig(t, withUser, func(s *webConfigTest) {
		t := s.t
		s.wantStatus(200, "secret")
		for i := range 150 {
			s.wantStatus(401, fmt.Sprint("wrong", i))
		}
		p := s.config.current.Load().users
		testutil.Equal(t, "wrong passwords that are remembered", len(p.wrong), 100)
		p.comparing <- struct{}{} // blocks comparisons
		s.wantStatus(200, "secret")
		s.wantStatus(401, "wrong149")
		<-p.comparing
	})
}
