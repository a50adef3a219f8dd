package devstack

import (
	"cmp"
	"errors"
	"fmt"
	"net"

	"github.com/nats-io/nats-server/v2/server"
)

// NATSConfig says where an embedded NATS server listens and keeps its streams.
type NATSConfig struct {
	Host string                // default 127.0.0.1
	Port int                   // 0: a free one
	Dir  string                // JetStream's; empty: a temporary one, removed by Close
	Tune func(*server.Options) // last word on the options: users, TLS, limits; may be nil
}

// NATSServer is an embedded NATS server with JetStream, as Dynamo needs it.
type NATSServer struct {
	srv    *server.Server
	opts   *server.Options
	config NATSConfig
	remove func()
}

// NATS starts a NATS server and returns once it takes connections.
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
	asked := opts.Clone() // the server fills in its own
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, nil, err
	}
	// A server that cannot start tells only its log, and does not end the process
	// as long as the log is not its own.
	var fatal fatalLog
	srv.SetLoggerV2(&fatal, false, false, false)
	srv.Start()
	if srv.Addr() == nil || !srv.Running() {
		srv.Shutdown()
		return nil, nil, cmp.Or(fatal.err, errors.New("it does not listen"))
	}
	return srv, asked, nil
}

// URL is what a client of the server connects to.
func (s *NATSServer) URL() string {
	return "nats://" + net.JoinHostPort(s.config.Host, fmt.Sprint(s.config.Port))
}

// Config is what the server was started with, with its real port: the same again
// restarts it. A temporary Dir is not in it, for Close has removed it by then.
func (s *NATSServer) Config() NATSConfig { return s.config }

// Varz is what the server says of itself: connections, traffic, faults.
func (s *NATSServer) Varz() *server.Varz {
	v, _ := s.srv.Varz(nil) // fails on options only
	return v
}

// Reload has the server take over options as they are changed, without cutting anybody off.
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

// fatalLog is a log of a NATS server that keeps the first reason for its end.
// Start writes it, before anything else can.
type fatalLog struct{ err error }

func (l *fatalLog) Fatalf(format string, v ...any) {
	l.err = cmp.Or(l.err, fmt.Errorf(format, v...))
}

func (*fatalLog) Noticef(string, ...any) {}
func (*fatalLog) Warnf(string, ...any)   {}
func (*fatalLog) Errorf(string, ...any)  {}
func (*fatalLog) Debugf(string, ...any)  {}
func (*fatalLog) Tracef(string, ...any)  {}
