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

// drain is how long Serve waits for requests under way when it ends.
const drainTimeout = time.Second

// Stalled is how long a connection of HTTP/2 may take not a single byte: there the end
// of a request's time does not end a write that is stuck. The library looks at these
// intervals, so that it may be twice as long.
const StallTimeout = 3 * time.Second

// What a client may take of a connection.
const (
	headerTimeout   = 5 * time.Second
	requestTimeout  = 10 * time.Second // with the headers
	responseTimeout = 30 * time.Second // from the end of the headers; streams have times of their own
	idleTimeout     = 2 * time.Minute  // between requests
	maxHeaders      = 64 << 10         // bytes; the library adds 4 KiB
)

// Serve answers HTTP on l until ctx ends, then lets requests under way finish. Config is what
// is demanded of clients; nil: nothing.
func Serve(ctx context.Context, l net.Listener, h http.Handler, config *WebConfig, log *slog.Logger) error {
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
		if d := config.current.Load(); d.tls != nil {
			log.Info("TLS is enabled.", "http2", slices.Contains(d.tls.NextProtos, "h2"), "address", address)
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

// connection is the key of the connection that a request has come by.
type connKey struct{}

// LimitSendBuffer bounds, in bytes, what the kernel keeps for a client that does not read.
// Beyond that a write waits, so that its deadline says whether the client reads.
func LimitSendBuffer(r *http.Request, most int) {
	c := r.Context().Value(connKey{})
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(most) // of one that has gone
	}
}
