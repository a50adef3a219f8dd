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
var errNoTLS = errors.New("the files for TLS with the workers cannot be used")

// renew reads again what TLS needs, which may have been replaced. What cannot be used, as
// while it is being written, changes nothing.
func (s *Scraper) renew() {
	if s.TLS == nil {
		s.trust.CompareAndSwap(nil, new(tls.Config))
		return
	}
	config, err := s.TLS()
	if err == nil {
		s.trust.Store(config)
		s.wrongTLS = ""
		return
	}
	if said := err.Error(); said != s.wrongTLS {
		s.wrongTLS = said
		s.Log.Warn("The files for TLS with the workers cannot be used as they are; what they held before is in force", "error", err)
	}
}

// connectTLS is connect, and TLS on top of it.
func (s *Scraper) connectTLS(ctx context.Context, network, address string) (net.Conn, error) {
	config := s.trust.Load()
	if config == nil {
		return nil, troubled{errNoTLS, stats.ScrapeTLSFailed}
	}
	conn, err := s.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if a := askingIn(ctx); a != nil {
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
		return nil, troubled{connect.WorkerTLSError(err, false), stats.ScrapeTLSFailed}
	}
	if asked {
		return &examined{Conn: secure}, nil
	}
	return secure, nil
}

// examined is a connection to a worker that asks who we are. It looks at our certificate
// when for us the handshake is over: if it ends the connection before it has said anything,
// it does not like that. What comes first then, its alert or the end, is chance.
type examined struct {
	net.Conn
	passed atomic.Bool // it has said something
}

func (e *examined) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	if n > 0 {
		e.passed.Store(true)
	}
	return n, e.explain(err)
}

func (e *examined) Write(b []byte) (int, error) {
	n, err := e.Conn.Write(b)
	return n, e.explain(err)
}

// explain says of an end that it is the worker's verdict, unless the end is our own.
func (e *examined) explain(err error) error {
	if err == nil || e.passed.Load() || errors.Is(err, net.ErrClosed) {
		return err
	}
	return troubled{connect.WorkerTLSError(err, true), stats.ScrapeTLSFailed}
}
