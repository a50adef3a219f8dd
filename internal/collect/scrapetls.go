package collect

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/stats"
)

// errUnusableTLS means that the files for TLS have not been usable since the start.
var errUnusableTLS = errors.New("the files for TLS with the workers cannot be used")

// reloadTLS reads the files for TLS again, because they may have been renewed. Files that cannot
// be used, such as one that is being written, change nothing.
func (s *Scraper) reloadTLS() {
	if s.TLS == nil {
		s.tlsConfig.CompareAndSwap(nil, new(tls.Config))
		return
	}
	config, err := s.TLS()
	if err == nil {
		s.tlsConfig.Store(config)
		s.lastTLSError = ""
		return
	}
	if text := err.Error(); text != s.lastTLSError {
		s.lastTLSError = text
		s.Log.Warn("The files for TLS with the workers cannot be used as they are; their previous contents stay in use", "error", err)
	}
}

// dialTLSContext connects for an attempt over TLS.
func (s *Scraper) dialTLSContext(ctx context.Context, network, address string) (net.Conn, error) {
	config := s.tlsConfig.Load()
	if config == nil {
		return nil, scrapeError{errUnusableTLS, stats.ScrapeTLSFailed}
	}
	conn, err := s.dialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if a := dialStateFrom(ctx); a != nil {
		ctx = a
	}
	// The client certificate is sent even if the worker does not accept its authority, because
	// the worker's alert explains best what is wrong with it.
	requested, cert := false, new(tls.Certificate)
	config = config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(address)
	if len(config.Certificates) > 0 {
		cert = &config.Certificates[0]
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		requested = true
		return cert, nil
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, err // the worker does not answer, or too slowly
		}
		return nil, scrapeError{connect.WorkerTLSError(err, false), stats.ScrapeTLSFailed}
	}
	if requested {
		return &clientCertConn{Conn: secure}, nil
	}
	return secure, nil
}

// clientCertConn is a connection to a worker that requests a client certificate. The worker
// verifies the certificate after the handshake is over for the client. If it closes the
// connection before it has sent any data, it has rejected the certificate. Whether the client
// then sees an alert or the end of the connection is a race.
type clientCertConn struct {
	net.Conn
	gotData atomic.Bool
}

func (c *clientCertConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.gotData.Store(true)
	}
	return n, c.explain(err)
}

func (c *clientCertConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain(err)
}

// explain turns an end of the connection into the worker's rejection, unless this side has
// closed it.
func (c *clientCertConn) explain(err error) error {
	if err == nil || c.gotData.Load() || errors.Is(err, net.ErrClosed) {
		return err
	}
	return scrapeError{connect.WorkerTLSError(err, true), stats.ScrapeTLSFailed}
}
