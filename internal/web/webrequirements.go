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

// demands are what a web configuration says, understood.
type requirements struct {
	text    string // a hash of all files
	tls     *tls.Config
	clients connRequirements
	headers map[string]string
	limit   web.RateLimiterConfig
	limiter *rate.Limiter
	users   *passwords // nil: no password is needed

	// access is who may get in; when that changes replaced ends, and answers
	// that go on end with it: their clients may ask again.
	access   string
	replaced context.Context
	replace  context.CancelFunc
}

// clients are what is demanded of a connection.
type connRequirements struct {
	tls         bool
	certificate clientCertificate
	authorities string // that sign them
	names       string // of which one must be in a certificate; empty: any
}

// clientCertificate is what is demanded of one, from less to more.
type clientCertificate int

const (
	noCertificate      clientCertificate = iota // or it is asked for, and may be left out
	anyCertificate                              // signed by any authority
	trustedCertificate                          // signed by one of the authorities
)

// extraHeaders may be set by a web configuration: these, to these values or, if none is here, to
// any. They are the toolkit's, which does not export them.
var extraHeaders = map[string][]string{
	"Strict-Transport-Security": nil,
	"X-Content-Type-Options":    {"nosniff"},
	"X-Frame-Options":           {"deny", "sameorigin"},
	"X-XSS-Protection":          nil,
	"Content-Security-Policy":   nil,
}

// parseWebConfig is the toolkit's getConfig, of bytes that were read once. Relative paths are
// below dir.
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

// newDemands understands a configuration in which nothing is the path of a file any more.
func newRequirements(c *web.Config) (*requirements, error) {
	d := &requirements{headers: c.HTTPConfig.Header, limit: c.RateLimiterConfig}
	d.replaced, d.replace = context.WithCancel(context.Background())
	if c.TLSConfig.IsEnabled() {
		if err := d.useTLS(c); err != nil {
			return nil, err
		}
	}
	if c.RateLimiterConfig.Interval != 0 {
		d.limiter = rate.NewLimiter(rate.Every(c.RateLimiterConfig.Interval), c.RateLimiterConfig.Burst)
	}
	if len(c.Users) > 0 {
		d.users = newPasswords(c.Users)
	}
	d.access = fmt.Sprintf("%+v", d.clients)
	for _, user := range slices.Sorted(maps.Keys(c.Users)) {
		d.access += fmt.Sprintf(" %q %q", user, string(c.Users[user]))
	}
	return d, nil
}

// useTLS is what the configuration says of connections.
func (d *requirements) useTLS(c *web.Config) error {
	config, err := web.ConfigToTLSConfig(&c.TLSConfig)
	if err != nil {
		return err
	}
	pair, err := config.GetCertificate(nil)
	if err != nil {
		return err
	}
	config.Certificates, config.GetCertificate = []tls.Certificate{*pair}, nil // else it is parsed for each connection
	config.NextProtos = []string{"http/1.1"}
	if c.HTTPConfig.HTTP2 && allowsHTTP2(config) {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	d.tls = config
	d.clients = connRequirements{tls: true, authorities: c.TLSConfig.ClientCAsText}
	if c.TLSConfig.ClientAllowedSans != nil {
		d.clients.names = fmt.Sprintf("%q", c.TLSConfig.ClientAllowedSans)
	}
	switch config.ClientAuth {
	case tls.RequireAnyClientCert:
		d.clients.certificate = anyCertificate
	case tls.RequireAndVerifyClientCert:
		d.clients.certificate = trustedCertificate
		if config.ClientCAs != nil && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.TLSConfig.ClientCAsText)) {
			return errors.New("no certificate can be read in client_ca or client_ca_file")
		}
	}
	return nil
}

// mayHTTP2 reports whether HTTP/2 can be spoken with these cipher suites (RFC 9113, section 9.2.2).
func allowsHTTP2(c *tls.Config) bool {
	return c.CipherSuites == nil || c.MinVersion >= tls.VersionTLS13 ||
		slices.Contains(c.CipherSuites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) ||
		slices.Contains(c.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
}

// nothing reports whether every client meets them.
func (d *requirements) empty() bool { return d.tls == nil && d.users == nil }

// atLeast is an error that says what was demanded before and is not any more.
func (d *requirements) checkNotWeaker(before *requirements) error {
	less := func(what string) error {
		return fmt.Errorf("it does not demand %s any more: want a restart, if that is meant", what)
	}
	switch was, is := before.clients, d.clients; {
	case before.users != nil && d.users == nil:
		return less("a password")
	case was.tls && !is.tls:
		return less("TLS")
	case was.certificate > is.certificate:
		return less("the certificate of a client")
	case was.names != "" && is.names == "":
		return less("a certain name in the certificate of a client")
	}
	return nil
}

// follow takes over from those before what has not changed: a limit that is used up, verdicts
// on passwords, and the answers that go on.
func (d *requirements) inherit(before *requirements) {
	if d.limit == before.limit {
		d.limiter = before.limiter
	}
	if d.access == before.access {
		d.users, d.replaced, d.replace = before.users, before.replaced, before.replace
	}
}

// met reports whether a connection that was made under earlier demands meets these, too.
func (d *requirements) metBy(s *tls.ConnectionState) bool {
	switch {
	case !d.clients.tls:
		return true
	case s == nil:
		return false
	case d.clients.certificate == noCertificate:
		return true
	case len(s.PeerCertificates) == 0:
		return false
	}
	own := s.PeerCertificates[0]
	if d.clients.certificate == trustedCertificate {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := own.Verify(x509.VerifyOptions{Roots: d.tls.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			return false
		}
	}
	return d.tls.VerifyPeerCertificate == nil || d.tls.VerifyPeerCertificate([][]byte{own.Raw}, nil) == nil
}

// set sets the headers of an answer.
func (d *requirements) setHeaders(h http.Header) {
	for name, value := range d.headers {
		h.Set(name, value)
	}
}
