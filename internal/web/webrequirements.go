package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

// requirements are a parsed web configuration.
type requirements struct {
	hash    string // of all files
	tls     *tls.Config
	clients connRequirements
	headers map[string]string
	limit   web.RateLimiterConfig
	limiter *rate.Limiter
	users   *passwords // nil if no password is needed

	// access describes which clients have access. When that changes, replaced ends, and with it
	// the responses in progress: their clients must send a new request.
	access   string
	replaced context.Context
	replace  context.CancelFunc
}

// connRequirements are what a connection must meet.
type connRequirements struct {
	tls         bool
	certificate clientCertificate
	authorities string // the CA certificates, in PEM
	names       string // one of them must be in a certificate; empty if any will do
}

// clientCertificate is which client certificate is required, from less to more.
type clientCertificate int

const (
	noCertificate      clientCertificate = iota // or it is optional
	anyCertificate                              // any certificate, even a self-signed one
	trustedCertificate                          // signed by one of the configured CAs
)

// extraHeaders are the headers that a web configuration may set, with their allowed values; nil
// allows any value. The toolkit has the same table but does not export it.
var extraHeaders = map[string][]string{
	"Strict-Transport-Security": nil,
	"X-Content-Type-Options":    {"nosniff"},
	"X-Frame-Options":           {"deny", "sameorigin"},
	"X-XSS-Protection":          nil,
	"Content-Security-Policy":   nil,
}

// parseWebConfig does what the toolkit's getConfig does, but on bytes that were read once. Relative
// paths are below dir.
func parseWebConfig(text []byte, dir string) (*web.Config, error) {
	c := &web.Config{
		TLSConfig:  web.TLSConfig{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13},
		HTTPConfig: web.HTTPConfig{HTTP2: true},
	}
	if err := yaml.UnmarshalStrict(text, c); err != nil {
		return nil, err
	}
	for name, value := range c.HTTPConfig.Header {
		values, known := extraHeaders[name]
		if !known {
			return nil, fmt.Errorf("HTTP header %q cannot be configured", name)
		}
		if len(values) > 0 && !slices.Contains(values, value) {
			return nil, fmt.Errorf("HTTP header %s is %q: want one of %q", name, value, values)
		}
	}
	for _, hash := range c.Users {
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, err
		}
	}
	c.TLSConfig.SetDirectory(dir)
	return c, nil
}

// newRequirements builds requirements from a configuration whose files have been read into it.
func newRequirements(c *web.Config) (*requirements, error) {
	r := &requirements{headers: c.HTTPConfig.Header, limit: c.RateLimiterConfig}
	r.replaced, r.replace = context.WithCancel(context.Background())
	if c.TLSConfig.IsEnabled() {
		if err := r.useTLS(c); err != nil {
			return nil, err
		}
	}
	if c.RateLimiterConfig.Interval != 0 {
		r.limiter = rate.NewLimiter(rate.Every(c.RateLimiterConfig.Interval), c.RateLimiterConfig.Burst)
	}
	if len(c.Users) > 0 {
		r.users = newPasswords(c.Users)
	}
	r.access = fmt.Sprintf("%+v", r.clients)
	for _, user := range slices.Sorted(maps.Keys(c.Users)) {
		r.access += fmt.Sprintf(" %q %q", user, string(c.Users[user]))
	}
	return r, nil
}

// useTLS sets the requirements on connections.
func (r *requirements) useTLS(c *web.Config) error {
	config, err := web.ConfigToTLSConfig(&c.TLSConfig)
	if err != nil {
		return err
	}
	pair, err := config.GetCertificate(nil)
	if err != nil {
		return err
	}
	config.Certificates, config.GetCertificate = []tls.Certificate{*pair}, nil // otherwise it would be parsed for each connection
	config.NextProtos = []string{"http/1.1"}
	if c.HTTPConfig.HTTP2 && allowsHTTP2(config) {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	r.tls = config
	r.clients = connRequirements{tls: true, authorities: c.TLSConfig.ClientCAsText}
	if c.TLSConfig.ClientAllowedSans != nil {
		r.clients.names = fmt.Sprintf("%q", c.TLSConfig.ClientAllowedSans)
	}
	switch config.ClientAuth {
	case tls.RequireAnyClientCert:
		r.clients.certificate = anyCertificate
	case tls.RequireAndVerifyClientCert:
		r.clients.certificate = trustedCertificate
		if config.ClientCAs != nil && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.TLSConfig.ClientCAsText)) {
			return errors.New("no certificate can be read in client_ca or client_ca_file")
		}
	}
	return nil
}

// allowsHTTP2 reports whether these cipher suites allow HTTP/2 (RFC 9113, section 9.2.2).
func allowsHTTP2(c *tls.Config) bool {
	return c.CipherSuites == nil || c.MinVersion >= tls.VersionTLS13 ||
		slices.Contains(c.CipherSuites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) ||
		slices.Contains(c.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
}

// empty reports whether every client meets the requirements.
func (r *requirements) empty() bool { return r.tls == nil && r.users == nil }

// checkNotWeaker returns an error if r no longer requires what was required before.
func (r *requirements) checkNotWeaker(before *requirements) error {
	less := func(what string) error {
		return fmt.Errorf("it no longer requires %s: restart the program if that is intended", what)
	}
	switch was, is := before.clients, r.clients; {
	case before.users != nil && r.users == nil:
		return less("a password")
	case was.tls && !is.tls:
		return less("TLS")
	case was.certificate > is.certificate:
		return less("a client certificate")
	case was.names != "" && is.names == "":
		return less("a name in the client certificate")
	}
	return nil
}

// inherit takes over the state of unchanged parts from the requirements before: the rate limiter,
// the checked passwords, and the responses in progress.
func (r *requirements) inherit(before *requirements) {
	if r.limit == before.limit {
		r.limiter = before.limiter
	}
	if r.access == before.access {
		r.users, r.replaced, r.replace = before.users, before.replaced, before.replace
	}
}

// metBy reports whether a connection that was made under earlier requirements meets r, too.
func (r *requirements) metBy(s *tls.ConnectionState) bool {
	switch {
	case !r.clients.tls:
		return true
	case s == nil:
		return false
	case r.clients.certificate == noCertificate:
		return true
	case len(s.PeerCertificates) == 0:
		return false
	}
	own := s.PeerCertificates[0]
	if r.clients.certificate == trustedCertificate {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := own.Verify(x509.VerifyOptions{Roots: r.tls.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			return false
		}
	}
	return r.tls.VerifyPeerCertificate == nil || r.tls.VerifyPeerCertificate([][]byte{own.Raw}, nil) == nil
}

// setHeaders sets the headers of a response.
func (r *requirements) setHeaders(h http.Header) {
	for name, value := range r.headers {
		h.Set(name, value)
	}
}
