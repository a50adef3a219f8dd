package devstack

import (
	"cmp"
	"errors"
	"fmt"
	"net"

	"github.com/nats-io/nats-server/v2/server"
)

// NATSConfig configures an embedded NATS server.
type NATSConfig struct {
	Host string                // default 127.0.0.1
	Port int                   // 0: a free one
	Dir  string                // for JetStream; empty: a temporary one, removed by Close
	Tune func(*server.Options) // changes the options before the start (users, TLS, limits); may be nil
}

// NATSServer is an embedded NATS server with JetStream, which Dynamo needs.
type NATSServer struct {
	srv    *server.Server
	opts   *server.Options
	config NATSConfig
	remove func()
}

// NATS starts a NATS server and returns when it accepts connections.
func NATS(c NATSConfig) (*NATSServer, error) {
	c.Host = cmp.Or(c.Host, "127.0.0.1")
	port, err := FreePort(c.Host, c.Port)
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	c.Port = port
	dir, remove, err := dataDir(c.Dir, "devstack-nats-")
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	srv, opts, err := startNATS(c, dir)
	if err != nil {
		remove()
		return nil, fmt.Errorf("start NATS on %s:%d: %w", c.Host, c.Port, err)
	}
	return &NATSServer{srv: srv, opts: opts, config: c, remove: remove}, nil
}

func startNATS(c NATSConfig, dir string) (*server.Server, *server.Options, error) {
	opts := &server.Options{
		Host: c.Host, Port: c.Port,
		JetStream: true, StoreDir: dir,
		NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
	}
	if c.Tune != nil {
		c.Tune(opts)
	}
	requested := opts.Clone() // the server changes its options
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, nil, err
	}
	// A server that cannot start only logs the reason. With a logger of ours it does not also
	// end the process.
	var fatal fatalLog
	srv.SetLoggerV2(&fatal, false, false, false)
	srv.Start()
	if srv.Addr() == nil || !srv.Running() {
		srv.Shutdown()
		return nil, nil, cmp.Or(fatal.err, errors.New("the server does not listen"))
	}
	return srv, requested, nil
}

// URL returns the address for clients of the server.
func (s *NATSServer) URL() string {
	return "nats://" + net.JoinHostPort(s.config.Host, fmt.Sprint(s.config.Port))
}

// Config returns the configuration of the server, with its actual port. A server that is started
// with it continues where this one stopped. It does not contain a temporary Dir, because Close
// removes that.
func (s *NATSServer) Config() NATSConfig { return s.config }

// Varz returns the server's own statistics: connections, traffic, errors.
func (s *NATSServer) Varz() *server.Varz {
	v, _ := s.srv.Varz(nil) // fails only for wrong options
	return v
}

// Reload changes options of the running server, without closing connections.
func (s *NATSServer) Reload(change func(*server.Options)) error {
	opts := s.opts.Clone()
	change(opts)
	if err := s.srv.ReloadOptions(opts); err != nil {
		return fmt.Errorf("reload NATS: %w", err)
	}
	s.opts = opts
	return nil
}

// Close ends the server and waits until its port is free again.
func (s *NATSServer) Close() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.remove()
}

// fatalLog is a NATS server's logger that keeps the first fatal error. Start writes it
// before any other goroutine can.
type fatalLog struct{ err error }

func (l *fatalLog) Fatalf(format string, v ...any) {
	l.err = cmp.Or(l.err, fmt.Errorf(format, v...))
}

func (*fatalLog) Noticef(string, ...any) {}
func (*fatalLog) Warnf(string, ...any)   {}
func (*fatalLog) Errorf(string, ...any)  {}
func (*fatalLog) Debugf(string, ...any)  {}
func (*fatalLog) Tracef(string, ...any)  {}
