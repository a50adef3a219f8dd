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

// errNoTLS says that the files for TLS could not be used from the beginning.
var errUnusableTLS = errors.New("the files for TLS with the workers cannot be used")

// renew reads again what TLS needs, which may have been replaced. What cannot be used, as
// while it is being written, changes nothing.
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
	if said := err.Error(); said != s.lastTLSError {
		s.lastTLSError = said
		s.Log.Warn("The files for TLS with the workers cannot be used as they are; what they held before is in force", "error", err)
	}
}

// connectTLS is connect, and TLS on top of it.
func (s *Scraper) dialTLSContext(ctx context.Context, network, address string) (net.Conn, error) {
	config := s.tlsConfig.Load()
	if config == nil {
		return nil, troubleError{errUnusableTLS, stats.ScrapeTLSFailed}
	}
	conn, err := s.dialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if a := dialStateFrom(ctx); a != nil {
		ctx = a
	}
	// Our certificate is given whatever authorities the worker names: it says best what is
	// wrong with it.
	asked, ours := false, new(tls.Certificate)
	config = config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(address)
	if len(config.Certificates) > 0 {
		ours = &config.Certificates[0]
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return ours, nil
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, err // it says nothing, or too slowly
		}
		return nil, troubleError{connect.WorkerTLSError(err, false), stats.ScrapeTLSFailed}
	}
	if asked {
		return &clientCertConn{Conn: secure}, nil
	}
	return secure, nil
}

// examined is a connection to a worker that asks who we are. It looks at our certificate
// when for us the handshake is over: if it ends the connection before it has said anything,
// it does not like that. What comes first then, its alert or the end, is chance.
type clientCertConn struct {
	net.Conn
	gotData atomic.Bool // it has said something
}

func (e *clientCertConn) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	if n > 0 {
		e.gotData.Store(true)
	}
	return n, e.explain(err)
}

func (e *clientCertConn) Write(b []byte) (int, error) {
	n, err := e.Conn.Write(b)
	return n, e.explain(err)
}

// explain says of an end that it is the worker's verdict, unless the end is our own.
func (e *clientCertConn) explain(err error) error {
	if err == nil || e.gotData.Load() || errors.Is(err, net.ErrClosed) {
		return err
	}
	return troubleError{connect.WorkerTLSError(err, true), stats.ScrapeTLSFailed}
}
