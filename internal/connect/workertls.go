package connect

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// The flags of TLS with the workers' own metrics pages.
const (
	workerFlagCA   = "--worker-tls-ca"
	workerFlagCert = "--worker-tls-cert"
	workerFlagKey  = "--worker-tls-key"
)

// WorkerTLS are the files for TLS with the workers' own metrics pages; each may be empty.
type WorkerTLS struct {
	CA, Cert, Key string
}

// Given is the first of the flags that has a value; empty if none has.
func (f WorkerTLS) FirstFlag() string {
	return firstSet([][2]string{{workerFlagCA, f.CA}, {workerFlagCert, f.Cert}, {workerFlagKey, f.Key}})
}

// Check reports which of the files lacks another.
func (f WorkerTLS) Check() error { return requirePair(workerFlagCert, f.Cert, workerFlagKey, f.Key) }

// Config is what a connection needs, with the files as they are now: certificates are
// renewed while the program runs.
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

// WorkerTLSError is an error with a worker over TLS, and what may mend it. Refused: the
// worker looked at our certificate, or that there is none, and ended the connection.
func WorkerTLSError(err error, refused bool) error {
	mend := tlsHint(err, workerFlagCA, workerFlagCert+" and "+workerFlagKey)
	switch {
	case errors.As(err, new(x509.HostnameError)):
		mend = "the certificate must have the host of --worker-metrics-url in it"
	case mend == "" && refused:
		mend = workerFlagCert + " and " + workerFlagKey + certHint
	case mend == "":
		return err
	}
	return fmt.Errorf("%w (%s)", err, mend)
}
