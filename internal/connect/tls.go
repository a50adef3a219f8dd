package connect

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// The flags for TLS with NATS.
const (
	flagCA   = "--nats-tls-ca"
	flagCert = "--nats-tls-cert"
	flagKey  = "--nats-tls-key"
)

// The variables of Dynamo's NATS client with the same meaning, from 1.5 on.
const (
	natsCA       = "NATS_TLS_CA_CERT_PATH"
	natsCert     = "NATS_TLS_CLIENT_CERT_PATH"
	natsKey      = "NATS_TLS_CLIENT_KEY_PATH"
	natsInsecure = "NATS_TLS_INSECURE" // in Dynamo it turns verification off
)

// NATSTLS has the files for TLS with NATS; each may be empty. If one is set, TLS is required,
// whatever the scheme of the servers is.
type NATSTLS struct {
	CA, Cert, Key string
}

// NATSTLSFromEnv returns the files that the environment names.
func NATSTLSFromEnv(getenv func(string) string) NATSTLS {
	return NATSTLS{CA: getenv(natsCA), Cert: getenv(natsCert), Key: getenv(natsKey)}
}

// warnInsecure warns that certificates are verified although the environment turns that off.
func warnInsecure(getenv func(string) string, log *slog.Logger) {
	if slices.Contains([]string{"1", "true", "on", "yes"}, strings.ToLower(getenv(natsInsecure))) {
		log.Warn(natsInsecure + " is ignored: the certificates of NATS servers are always verified (" + flagCA + caHint + ")")
	}
}

// Check returns an error if only one of the certificate and its key is set, or if a server in the
// comma-separated list has no TLS.
func (f NATSTLS) Check(servers string) error {
	if err := requirePair(flagCert, f.Cert, flagKey, f.Key); err != nil {
		return err
	}
	if given := f.firstFlag(); given != "" && strings.Contains(servers, "ws://") {
		return fmt.Errorf("%s: needs servers with TLS, which ws:// does not have: want wss://", given)
	}
	return nil
}

// firstFlag returns the first of the flags that has a value.
func (f NATSTLS) firstFlag() string {
	return firstSet([][2]string{{flagCA, f.CA}, {flagCert, f.Cert}, {flagKey, f.Key}})
}

// firstSet returns the first flag that has a value, of pairs of a flag and its value.
func firstSet(flags [][2]string) string {
	for _, flag := range flags {
		if flag[1] != "" {
			return flag[0]
		}
	}
	return ""
}

// requirePair reports an error if only one of a certificate and its key is set.
func requirePair(flagCert, cert, flagKey, key string) error {
	switch {
	case cert != "" && key == "":
		return fmt.Errorf("%s %q: needs %s, the file with its key", flagCert, cert, flagKey)
	case key != "" && cert == "":
		return fmt.Errorf("%s %q: needs %s, the file with its certificate", flagKey, key, flagCert)
	}
	return nil
}

// Options returns the options of a connection that uses the files. It reads the files at once,
// so that an unusable one is an error, and each new connection reads them again, because
// certificates are renewed while the program runs.
func (f NATSTLS) Options() ([]nats.Option, error) {
	if f.firstFlag() == "" {
		return nil, nil
	}
	opts := []nats.Option{nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12})}
	if f.CA != "" {
		roots := func() (*x509.CertPool, error) { return readCA(flagCA, f.CA) }
		if _, err := roots(); err != nil {
			return nil, err
		}
		opts = append(opts, func(o *nats.Options) error { o.RootCAsCB = roots; return nil })
	}
	if f.Cert != "" {
		pair := func() (tls.Certificate, error) { return readKeyPair(flagCert+", "+flagKey, f.Cert, f.Key) }
		if _, err := pair(); err != nil {
			return nil, err
		}
		opts = append(opts, func(o *nats.Options) error { o.TLSCertCB = pair; return nil })
	}
	return opts, nil
}

// readCA reads a file of certificate authorities. name is the flag or variable that names the
// file.
func readCA(name, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no certificate: want PEM", name, file)
	}
	return roots, nil
}

// readKeyPair reads a certificate and its key. names are the flags or variables that name the
// files.
func readKeyPair(names, cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	var missing *os.PathError
	switch {
	case errors.As(err, &missing):
		return pair, fmt.Errorf("%s: %w", names, err)
	case err != nil:
		return pair, fmt.Errorf("%s: want a certificate in %s and its key in %s, both PEM: %w", names, cert, key, err)
	}
	return pair, nil
}

// natsTLSHint returns which flag may fix a problem of TLS with NATS; empty if none may.
func natsTLSHint(err error) string {
	switch {
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "the server has no TLS, which tls://, " + flagCA + " and " + flagCert + " require"
	// The server verifies the client certificate after the handshake is over for the client.
	// Whether the client then sees an alert or the end of the connection is a race.
	case errors.Is(err, nats.ErrTLS) && strings.Contains(err.Error(), "closed by remote after TLS handshake"):
		return flagCert + " and " + flagKey + certHint
	}
	return tlsHint(err, flagCA, flagCert+" and "+flagKey)
}

const (
	caHint   = " names the authorities that may sign the server's certificate"
	certHint = " identify this program"
)

// tlsHint returns which flags may fix a problem of TLS: those of the authorities or those of the
// client certificate. It is empty if neither may.
func tlsHint(err error, authorities, pair string) string {
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unverified):
		return authorities + caHint
	case isTLSAlert(err):
		return pair + certHint
	}
	return ""
}

// isTLSAlert reports whether err is an alert from the other side. Its type is not exported.
func isTLSAlert(err error) bool {
	return err != nil && strings.Contains(err.Error(), "remote error: tls: ")
}

// EtcdTLSError returns why TLS fails with one of a comma-separated list of etcd endpoints, and
// the variable that may fix it. It returns nil if TLS works, or if no server answers. It makes
// its own connections, because gRPC reports at most that a connection has ended.
func EtcdTLSError(ctx context.Context, endpoints string, getenv func(string) string) error {
	urls, err := etcdServers.parse(endpoints)
	if err != nil || urls[0].Scheme != "https" {
		return nil
	}
	config, err := etcdTLS(getenv)
	if err != nil {
		return nil // the files were usable when the client was made
	}
	if config == nil {
		config = new(tls.Config)
	}
	config.NextProtos = []string{"h2"}
	for _, u := range urls {
		if err := probeTLS(ctx, u, config); err != nil {
			hint := cmp.Or(tlsHint(err, etcdCA, etcdCert+" and "+etcdKey), "is it a server with TLS?")
			return fmt.Errorf("%s: TLS handshake: %w (%s)", redactedURLs([]*url.URL{u}), err, hint)
		}
	}
	return nil
}

// probeTLS makes a TLS connection and waits for the first byte from the server: if the server
// rejects the client certificate, it sends an alert.
func probeTLS(ctx context.Context, u *url.URL, config *tls.Config) error {
	const timeout = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil
	}
	defer conn.Close()
	config = config.Clone()
	config.ServerName = u.Hostname()
	c := tls.Client(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(timeout))
	if _, err := c.Read(make([]byte, 1)); isTLSAlert(err) {
		return err
	}
	return nil
}
