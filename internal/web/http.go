package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"
)

// drainTimeout is how long Serve waits for requests in progress when it ends.
const drainTimeout = time.Second

// StallTimeout is how long an HTTP/2 connection may go without accepting a byte. In HTTP/2 a
// request's write deadline does not end a write that is stuck. The library checks at this interval,
// so the actual time may be up to twice as long.
const StallTimeout = 3 * time.Second

// The limits of one connection.
const (
	headerTimeout   = 5 * time.Second
	requestTimeout  = 10 * time.Second // includes the headers
	responseTimeout = 30 * time.Second // from the end of the headers; streams set their own deadlines
	idleTimeout     = 2 * time.Minute  // between requests
	maxHeaders      = 64 << 10         // bytes; the library adds 4 KiB
)

// Serve serves HTTP on l until ctx ends, then lets requests in progress finish. config has the
// requirements that clients must meet. It is nil if there are none.
func Serve(ctx context.Context, l net.Listener, h http.Handler, config *Config, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      responseTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: StallTimeout},
	}
	address := l.Addr()
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	if config != nil {
		g := &guardedListener{Listener: l, config: config, server: server}
		l, server.Handler, server.ConnContext = g, config.guard(h), g.connContext
		if required := config.current.Load(); required.tls != nil {
			log.Info("TLS is enabled.", "http2", slices.Contains(required.tls.NextProtos, "h2"), "address", address)
		}
		watching, stop := context.WithCancel(ctx)
		watched := make(chan struct{})
		go func() { defer close(watched); config.watch(watching, log) }()
		defer func() { stop(); <-watched }()
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve http on %s: %w", address, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	l.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve http on %s: %w", address, err)
	}
	return nil
}

// connKey is the context key of a request's connection.
type connKey struct{}

// LimitSendBuffer bounds how many bytes the kernel buffers for a client that does not read.
// Beyond that a write blocks, so that its deadline detects such a client.
func LimitSendBuffer(r *http.Request, most int) {
	c := r.Context().Value(connKey{})
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(most) // fails if the client has disconnected
	}
}
