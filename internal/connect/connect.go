// Package connect makes the programs' connections to NATS and etcd from what
// their flags and the environment say, and keeps their secrets out of logs and
// errors.
package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// gRPC has one logger for the whole process, which it reads without a lock: it can
// only be set before anything uses gRPC. What it would print on stderr, the errors
// of the calls say too.
func init() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

// late reports whether ctx ended because its time was over.
func isTimeout(ctx context.Context) bool { return errors.Is(ctx.Err(), context.DeadlineExceeded) }

var errNoAnswer = errors.New("no answer in time")

// Check reports what is wrong with the addresses of servers, with the files for TLS and with what
// the environment says of credentials, before any server is asked. Either list may be empty.
func Check(nats string, files NATSTLS, etcd string, getenv func(string) string) error {
	quiet := slog.New(slog.DiscardHandler)
	if nats != "" {
		if err := files.Check(nats); err != nil {
			return err
		}
		options, err := files.Options()
		if err != nil {
			return err
		}
		if _, err := newNATSClient(nats, getenv, quiet, NATSHooks{}, options); err != nil {
			return err
		}
	}
	if etcd != "" {
		if _, err := NewEtcdEndpoints(etcd, getenv, quiet); err != nil {
			return err
		}
	}
	return nil
}

// list is the value of a flag that lists servers.
type serverList struct {
	flag    string
	schemes []string // allowed ones; the first is that of a server without one
	port    string   // of a server without one; empty: leave it to the scheme
}

// parse reads a comma list of servers. Its errors show no password: neither one in
// a URL, nor a piece of one that a comma cut in two.
func (l serverList) parse(value string) ([]*url.URL, error) {
	var servers []*url.URL
	for i, item := range strings.Split(value, ",") {
		item = strings.TrimSpace(item)
		u, err := l.server(item)
		if err == nil {
			servers = append(servers, u)
			continue
		}
		if strings.Contains(value, "@") { // the reason may quote a piece of a password, too
			return nil, fmt.Errorf("--%s: server %d of the list is malformed: want %s://[user:password@]host:port, with special characters as %%XX",
				l.flag, i+1, l.schemes[0])
		}
		return nil, fmt.Errorf("--%s %q: malformed: %w: want %s://host:port, several separated by commas",
			l.flag, item, err, l.schemes[0])
	}
	return servers, nil
}

func (l serverList) server(item string) (*url.URL, error) {
	if item == "" {
		return nil, errors.New("an empty name")
	}
	if !strings.Contains(item, "://") {
		item = l.schemes[0] + "://" + item
	}
	u, err := url.Parse(item)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL
	}
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(l.schemes, u.Scheme):
		return nil, fmt.Errorf("scheme is none of %s", strings.Join(l.schemes, ", "))
	case u.Hostname() == "":
		return nil, errors.New("no host")
	case strings.Contains(u.Hostname(), ":") && u.Host[0] != '[':
		return nil, errors.New("more than one port")
	}
	if u.Port() == "" && l.port != "" {
		u.Host = net.JoinHostPort(u.Hostname(), l.port)
	}
	if p, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || p == 0) {
		return nil, errors.New("a port is a number from 1 to 65535")
	}
	return u, nil
}

// shown is how servers are named in logs and errors: where they are, not how to
// get in.
func redactedURLs(servers []*url.URL) string {
	names := make([]string, len(servers))
	for i, u := range servers {
		names[i] = u.Scheme + "://" + u.Host
	}
	return strings.Join(names, ",")
}

// half says that of two variables that belong together only one is set.
func requireBoth(getenv func(string) string, a, b string) error {
	switch {
	case getenv(a) != "" && getenv(b) == "":
		return fmt.Errorf("%s is set, but not %s: want both or neither", a, b)
	case getenv(a) == "" && getenv(b) != "":
		return fmt.Errorf("%s is set, but not %s: want both or neither", b, a)
	default:
		return nil
	}
}
