// Package connect connects to NATS and etcd as the flags and Dynamo's environment variables say.
// It keeps secrets out of logs and errors.
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

// gRPC has one logger for the whole process. It reads the logger without a lock, so the logger
// can only be set before anything uses gRPC. Nothing is lost without it: the errors of the calls
// say what gRPC would print on stderr.
func init() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

// isTimeout reports whether ctx ended because its deadline has passed.
func isTimeout(ctx context.Context) bool { return errors.Is(ctx.Err(), context.DeadlineExceeded) }

var errNoAnswer = errors.New("no answer in time")

// Check reports what is wrong with the servers' addresses, the files for TLS, and the
// credentials in the environment, without connecting to a server. Either address may be empty.
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

// serverList describes a flag that lists servers.
type serverList struct {
	flag    string
	schemes []string // allowed ones; the first is the default
	port    string   // the default port; empty: the scheme's own
}

// parse parses a comma-separated list of servers. Its errors contain no password of a URL, and no
// part of a password that has a comma in it.
func (l serverList) parse(value string) ([]*url.URL, error) {
	var servers []*url.URL
	for i, item := range strings.Split(value, ",") {
		item = strings.TrimSpace(item)
		u, err := l.parseServer(item)
		if err == nil {
			servers = append(servers, u)
			continue
		}
		if strings.Contains(value, "@") { // the reason may contain a part of a password, too
			return nil, fmt.Errorf("--%s: server %d of the list is malformed: want %s://[user:password@]host:port, with special characters as %%XX",
				l.flag, i+1, l.schemes[0])
		}
		return nil, fmt.Errorf("--%s %q: malformed: %w: want %s://host:port, several separated by commas",
			l.flag, item, err, l.schemes[0])
	}
	return servers, nil
}

// parseServer parses one server of the list.
func (l serverList) parseServer(item string) (*url.URL, error) {
	if item == "" {
		return nil, errors.New("a name is empty")
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
		return nil, fmt.Errorf("the scheme is none of %s", strings.Join(l.schemes, ", "))
	case u.Hostname() == "":
		return nil, errors.New("it has no host")
	case strings.Contains(u.Hostname(), ":") && u.Host[0] != '[':
		return nil, errors.New("it has more than one port")
	}
	if u.Port() == "" && l.port != "" {
		u.Host = net.JoinHostPort(u.Hostname(), l.port)
	}
	if p, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || p == 0) {
		return nil, errors.New("a port is a number from 1 to 65535")
	}
	return u, nil
}

// redactedURLs returns the servers for logs and errors, without credentials.
func redactedURLs(servers []*url.URL) string {
	names := make([]string, len(servers))
	for i, u := range servers {
		names[i] = u.Scheme + "://" + u.Host
	}
	return strings.Join(names, ",")
}

// requireBoth reports an error if only one of two environment variables is set.
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
