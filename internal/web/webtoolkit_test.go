package web

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"

	"github.com/prometheus/exporter-toolkit/web"
)

// TestWebConfigErrorsMatchToolkit checks that Config accepts the same files as the toolkit.
func TestWebConfigErrorsMatchToolkit(t *testing.T) {
	ca := testutil.NewAuthorityWithCertificates(t)
	inline := func(key, file string) string {
		b, err := os.ReadFile(ca.File(file))
		testutil.NoError(t, err)
		return "  " + key + ": |\n    " + strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n    ") + "\n"
	}
	for _, text := range []string{
		"", "{}", "# nothing", "---\n", "[]", "a", "a: b", "tls_server_config:", "tls_server_config: {}", "tls_server_config: {x: y}",
		withUser, withUser + withUser, withTLS, withTLS + withUser, withCerts, withNames, anyCert, optionalCert,
		"basic_auth_users: {a: b}", "basic_auth_users: {a: ''}", "basic_auth_users: {a: $2y$10$short}", "basic_auth_users: [a]",
		"tls_server_config: {cert_file: $dir/server.crt}", "tls_server_config: {key_file: $dir/server.key}", "tls_server_config: {cert_file: '', key_file: ''}",
		"tls_server_config: {cert_file: $dir/server.crt, key_file: $dir/client.key}", "tls_server_config: {cert_file: $dir/server.crt, key_file: $dir/none}",
		"tls_server_config: {cert_file: server.crt, key_file: server.key}", "tls_server_config: {cert_file: $dir/server.key, key_file: $dir/server.crt}",
		"tls_server_config:\n" + inline("cert", "server.crt") + inline("key", "server.key"),
		"tls_server_config:\n  cert_file: $dir/server.crt\n" + inline("key", "server.key"),
		"tls_server_config:\n" + inline("cert", "server.crt") + inline("key", "client.key"),
		"tls_server_config:\n" + inline("cert", "server.crt") + inline("key", "server.key") + inline("client_ca", "ca.crt") + "  client_auth_type: RequireAndVerifyClientCert\n",
		withTLS + "  client_ca_file: $dir/ca.crt\n", withTLS + "  client_ca_file: $dir/none\n  client_auth_type: RequireAndVerifyClientCert\n",
		withTLS + "  client_auth_type: RequestClientCert\n", withTLS + "  client_auth_type: RequireClientCert\n", withTLS + "  client_auth_type: NoClientCert\n",
		withTLS + "  client_auth_type: nonsense\n", "tls_server_config: {client_auth_type: RequireAnyClientCert}",
		withTLS + "  min_version: TLS13\n", withTLS + "  min_version: TLS14\n", withTLS + "  max_version: TLS12\n", withTLS + "  min_version: TLS10\n",
		withTLS + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n", withTLS + "  cipher_suites: [TLS_MADE_UP]\n",
		withTLS + "  curve_preferences: [X25519, CurveP256]\n", withTLS + "  curve_preferences: [P0]\n",
		withTLS + "  prefer_server_cipher_suites: true\n", withTLS + "  client_allowed_sans: []\n",
		"http_server_config: {http2: false}", "http_server_config: {http2: maybe}", "http_server_config: {http3: true}",
		"http_server_config: {headers: {X-Frame-Options: deny}}", "http_server_config: {headers: {X-Frame-Options: no}}", "http_server_config: {headers: {Server: x}}",
		"http_server_config: {headers: {X-Content-Type-Options: nosniff, Strict-Transport-Security: max-age=1, X-XSS-Protection: '1', Content-Security-Policy: x}}",
		"http_server_config: {headers: {X-Content-Type-Options: sniff}}",
		"rate_limit: {burst: 1, interval: 1s}", "rate_limit: {interval: x}", "rate_limit: {burst: 0, interval: 0}", "rate_limit: 3",
	} {
		path := filepath.Join(ca.Dir, "web.yml")
		writeFile(t, path, []byte(strings.ReplaceAll(text, "$dir", ca.Dir)))
		theirs := web.Validate(path)
		c := &Config{path: path}
		if _, ours := c.read(); (ours == nil) != (theirs == nil) {
			t.Errorf("%s\nerror %v, and the toolkit's error %v", text, ours, theirs)
		}
	}
}

func TestWebConfigClientCertificates(t *testing.T) {
	for _, c := range []struct {
		what, text             string
		without, client, named int // statuses without a certificate, with one, and with one that has the allowed name
	}{
		{"TLS", withTLS, 200, 200, 200},
		{"asks for certificates", withTLS + "  client_auth_type: RequestClientCert\n", 200, 200, 200},
		{"any certificate", anyCert, 0, 200, 200},
		{"any certificate, by its older name", withTLS + "  client_auth_type: RequireClientCert\n", 0, 200, 200},
		{"optional, of the CA", optionalCert, 200, 200, 200},
		{"of the CA", withCerts, 0, 200, 200},
		{"of another CA", strings.Replace(withCerts, "ca.crt", "server.crt", 1), 0, 0, 0},
		{"optional, of another CA", strings.Replace(optionalCert, "ca.crt", "server.crt", 1), 200, 0, 0},
		{"a certain name", withNames, 0, 0, 200},
		{"a certain name, optional", optionalCert + "  client_allowed_sans: [prometheus]\n", 0, 0, 200}, // as for the toolkit, a missing certificate has no name
		{"a password, too", withCerts + withUser, 0, 401, 401},
	} {
		t.Run(c.what, func(t *testing.T) {
			withWebConfig(t, c.text, func(s *webConfigTest) {
				s.wantStatus(c.without, "", "")
				s.wantStatus(c.client, "", "client")
				s.wantStatus(c.named, "", "named")
				if c.client == 401 {
					s.wantStatus(200, "secret", "client")
				}
				s.wantStatus(400, "")
			})
		})
	}
}

func TestWebConfigTLSOptions(t *testing.T) {
	const ecdsa256, ecdsa128 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	for _, c := range []struct {
		text     string
		max      uint16 // of the client; 0 for any
		version  uint16 // 0 if the handshake fails
		protocol string
		suite    uint16      // 0 for any
		curve    tls.CurveID // that the client supports; 0 for all
	}{
		{withTLS, 0, tls.VersionTLS13, "h2", 0, 0},
		{withTLS, tls.VersionTLS12, tls.VersionTLS12, "h2", 0, 0},
		{withTLS, tls.VersionTLS11, 0, "", 0, 0},
		{withTLS + "  min_version: TLS13\n", tls.VersionTLS12, 0, "", 0, 0},
		{withTLS + "  min_version: TLS11\n", tls.VersionTLS11, tls.VersionTLS11, "h2", 0, 0},
		{withTLS + "  max_version: TLS12\n", 0, tls.VersionTLS12, "h2", 0, 0},
		{withTLS + "http_server_config: {http2: false}\n", 0, tls.VersionTLS13, "http/1.1", 0, 0},
		{withTLS + "  max_version: TLS12\n  cipher_suites: [" + ecdsa256 + ", " + ecdsa128 + "]\n", 0, tls.VersionTLS12, "h2", 0, 0},
		{withTLS + "  max_version: TLS12\n  cipher_suites: [" + ecdsa256 + "]\n", 0, tls.VersionTLS12, "http/1.1", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, 0},
		{withTLS + "  curve_preferences: [CurveP384]\n", 0, tls.VersionTLS13, "h2", 0, tls.CurveP384},
		{withTLS + "  curve_preferences: [CurveP384]\n", 0, 0, "", 0, tls.X25519},
	} {
		withWebConfig(t, c.text, func(s *webConfigTest) {
			config := s.tls("")
			config.MinVersion, config.MaxVersion, config.NextProtos = tls.VersionTLS10, c.max, []string{"h2", "http/1.1"}
			if c.curve != 0 {
				config.CurvePreferences = []tls.CurveID{c.curve}
			}
			conn, err := s.Dial(s.t.Context(), "", "")
			testutil.NoError(s.t, err)
			client := tls.Client(conn, config)
			defer client.Close()
			if err := client.Handshake(); (err == nil) != (c.version != 0) {
				s.t.Errorf("%s\nhandshake: %v", c.text, err)
			} else if err != nil {
				return
			}
			got := client.ConnectionState()
			if got.Version != c.version || got.NegotiatedProtocol != c.protocol || c.suite != 0 && got.CipherSuite != c.suite {
				s.t.Errorf("%s\nis %s with %s and %s", c.text, tls.VersionName(got.Version), got.NegotiatedProtocol, tls.CipherSuiteName(got.CipherSuite))
			}
		})
	}
}

func TestWebConfigHTTP2(t *testing.T) {
	for text, want := range map[string]string{withTLS: "HTTP/2.0", withTLS + "http_server_config: {http2: false}\n": "HTTP/1.1"} {
		withWebConfig(t, text, func(s *webConfigTest) {
			_, got := s.request(s.client(""), "")
			testutil.Equal(s.t, "protocol", got, want)
		})
	}
}

func TestWebConfigHeaders(t *testing.T) {
	withWebConfig(t, withUser+"http_server_config: {headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=1}}\n", func(s *webConfigTest) {
		for _, password := range []string{"", "secret"} {
			r := request(s.t, "http://metrics/")
			if password != "" {
				r.SetBasicAuth("dynamo", password)
			}
			resp, err := s.client().Do(r)
			testutil.NoError(s.t, err)
			resp.Body.Close()
			testutil.Equal(s.t, "headers", []string{resp.Header.Get("X-Frame-Options"), resp.Header.Get("Strict-Transport-Security")}, []string{"deny", "max-age=1"})
			if password == "" {
				testutil.Equal(s.t, "WWW-Authenticate", resp.Header.Get("WWW-Authenticate"), "Basic")
			}
		}
	})
}

// Probes count against the rate limit, as SECURITY.md says, with and without passwords.
func TestWebConfigRateLimitCoversProbes(t *testing.T) {
	for _, file := range []string{"", withUser} {
		withWebConfig(t, file+"rate_limit: {burst: 5, interval: 10s}\n", func(s *webConfigTest) {
			c := s.client()
			get := func(path string) int {
				status, _ := fetch(s.t, c, request(s.t, "http://metrics"+path))
				return status
			}
			answered := map[bool]int{false: 401, true: 200}[file == ""]
			var got, again []int
			for _, path := range append(paths, paths...) {
				got = append(got, get(path))
			}
			testutil.Equal(s.t, "statuses", got, append(slices.Repeat([]int{answered}, 5), slices.Repeat([]int{429}, 2*len(paths)-5)...))
			for _, path := range []string{"/-/healthy", "/live", "/-/ready", "/health"} {
				again = append(again, get(path))
				testutil.Advance(10 * time.Second)
				again = append(again, get(path))
			}
			testutil.Equal(s.t, "statuses of the probes", again, []int{429, answered, 429, answered, 429, answered, 429, answered})
		}, handler(readyFleet(t)))
	}
}

func TestWebConfigRateLimit(t *testing.T) {
	withWebConfig(t, withUser+"rate_limit: {burst: 2, interval: 10s}\n", func(s *webConfigTest) {
		c := s.client()
		statuses := func() (got []int) {
			for range 4 {
				status, _ := s.request(c, "secret")
				got = append(got, status)
			}
			return got
		}
		testutil.Equal(s.t, "statuses", statuses(), []int{200, 200, 429, 429})
		testutil.Advance(10 * time.Second)
		testutil.Equal(s.t, "statuses an interval later", statuses(), []int{200, 429, 429, 429})
		s.reload("basic_auth_users:\n  dynamo: $other\nrate_limit: {burst: 2, interval: 10s}\n")
		status, _ := s.request(c, "another")
		testutil.Equal(s.t, "status after a change", status, http.StatusTooManyRequests)
		s.reload(withUser)
		testutil.Equal(s.t, "statuses without a limit", statuses(), []int{200, 200, 200, 200})
	})
}
