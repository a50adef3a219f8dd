package connect

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// The flags for TLS with the workers' own metrics.
const (
	workerFlagCA   = "--worker-tls-ca"
	workerFlagCert = "--worker-tls-cert"
	workerFlagKey  = "--worker-tls-key"
)

// WorkerTLS has the files for TLS with the workers' own metrics; each may be empty.
type WorkerTLS struct {
	CA, Cert, Key string
}

// FirstFlag returns the first of the flags that has a value; empty if none has.
func (f WorkerTLS) FirstFlag() string {
	return firstSet([][2]string{{workerFlagCA, f.CA}, {workerFlagCert, f.Cert}, {workerFlagKey, f.Key}})
}

// Check returns an error if only one of the certificate and its key is set.
func (f WorkerTLS) Check() error { return requirePair(workerFlagCert, f.Cert, workerFlagKey, f.Key) }

// Config returns the configuration for connections to workers. It reads the files at each call,
// because certificates are renewed while the program runs.
func (f WorkerTLS) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		roots, err := readCA(workerFlagCA, f.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = roots
	}
	if f.Cert != "" {
		pair, err := readKeyPair(workerFlagCert+", "+workerFlagKey, f.Cert, f.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// WorkerTLSError adds to an error of TLS with a worker what may fix it. rejected means that the
// worker closed the connection after it had examined the client certificate, or found none.
func WorkerTLSError(err error, rejected bool) error {
	fix := tlsHint(err, workerFlagCA, workerFlagCert+" and "+workerFlagKey)
	switch {
	case errors.As(err, new(x509.HostnameError)):
		fix = "the certificate must have the host of --worker-metrics-url in it"
	case fix == "" && rejected:
		fix = workerFlagCert + " and " + workerFlagKey + certHint
	case fix == "":
		return err
	}
	return fmt.Errorf("%w (%s)", err, fix)
}
