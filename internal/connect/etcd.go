package connect

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"dynamo-metrics/internal/backoff"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
)

// The environment variables of Dynamo's etcd client.
const (
	etcdUser = "ETCD_AUTH_USERNAME"
	etcdPass = "ETCD_AUTH_PASSWORD"
	etcdCA   = "ETCD_AUTH_CA"
	etcdCert = "ETCD_AUTH_CLIENT_CERT"
	etcdKey  = "ETCD_AUTH_CLIENT_KEY"
)

var etcdServers = serverList{flag: "etcd-endpoints", schemes: []string{"http", "https"}, port: "2379"}

// DialEtcd returns a client of the etcd at a comma-separated list of endpoints, with the
// credentials in Dynamo's environment variables. Without a user it returns at once, whether or
// not a server answers. With a user it logs in first, and retries until a server answers. If ctx
// is cancelled before that, client and error are nil; if its deadline passes, the error says why
// the login failed. Rejected credentials are an error. The client outlives ctx.
func DialEtcd(ctx context.Context, endpoints string, getenv func(string) string, log *slog.Logger) (*clientv3.Client, error) {
	urls, err := etcdServers.parse(endpoints)
	if err != nil {
		return nil, err
	}
	config, err := etcdConfig(urls, getenv, log)
	if err != nil {
		return nil, err
	}
	logged, explained := false, false // it was logged that etcd is not connected, and why
	var last error
	for attempt := 0; ctx.Err() == nil; attempt++ {
		client, err := newEtcdClient(ctx, config)
		if err == nil {
			if logged {
				log.Info("Connected to etcd", "endpoints", redactedURLs(urls))
			}
			return client, nil
		}
		if IsEtcdAuthError(err) {
			return nil, fmt.Errorf("connect to etcd at %s with %s and %s: %w", redactedURLs(urls), etcdUser, etcdPass, err)
		}
		if ctx.Err() == nil && !explained {
			if explained = true; errors.Is(err, context.DeadlineExceeded) {
				why := EtcdTLSError(ctx, endpoints, getenv)
				explained, err = why != nil, cmp.Or(why, fmt.Errorf("no answer in %v", config.DialTimeout))
			}
			if explained || !logged {
				log.Warn("etcd is not connected; retrying", "endpoints", redactedURLs(urls), "error", err)
				logged, last = true, err
			}
		}
		backoff.Wait(ctx, backoff.Pause(attempt))
	}
	if isTimeout(ctx) {
		return nil, fmt.Errorf("connect to etcd at %s: %w", redactedURLs(urls), cmp.Or(last, errNoAnswer))
	}
	return nil, nil
}

// IsEtcdAuthError reports whether etcd rejects the credentials, or denies the user a permission,
// so that a retry does not help.
func IsEtcdAuthError(err error) bool {
	return slices.ContainsFunc([]error{
		rpctypes.ErrAuthFailed, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound,
	}, func(authError error) bool { return errors.Is(err, authError) })
}

// newEtcdClient returns a client. ctx bounds only the login: the client outlives ctx.
func newEtcdClient(ctx context.Context, config clientv3.Config) (*clientv3.Client, error) {
	clientCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	detach := context.AfterFunc(ctx, cancel)
	config.Context = clientCtx
	client, err := clientv3.New(config)
	if err != nil {
		cancel()
		return nil, err
	}
	if !detach() { // ctx ended meanwhile, which has cancelled clientCtx
		client.Close()
		return nil, ctx.Err()
	}
	return client, nil
}

func etcdConfig(urls []*url.URL, getenv func(string) string, log *slog.Logger) (clientv3.Config, error) {
	config := clientv3.Config{
		Logger:      zap.NewNop(),    // it would log every attempt
		DialTimeout: 2 * time.Second, // bounds the login
		// A server that hangs is noticed after 13 s. gRPC allows no shorter interval, and etcd
		// treats pings without an open stream as an attack.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		// By default, gRPC's pauses between attempts grow to two minutes.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: backoff.Server.Longest},
			MinConnectTimeout: connectTimeout,
		})},
	}
	for _, u := range urls {
		if err := checkEtcdEndpoint(u, urls[0].Scheme); err != nil {
			return config, err
		}
		config.Endpoints = append(config.Endpoints, u.Scheme+"://"+u.Host)
	}
	if err := requireBoth(getenv, etcdUser, etcdPass); err != nil {
		return config, err
	}
	config.Username, config.Password = getenv(etcdUser), getenv(etcdPass)
	var err error
	if config.TLS, err = etcdTLS(getenv); err != nil {
		return config, err
	}
	if config.TLS != nil && urls[0].Scheme == "http" {
		log.Warn("etcd is used without TLS although certificates for it are set: --etcd-endpoints has the scheme http")
	}
	return config, nil
}

func checkEtcdEndpoint(u *url.URL, scheme string) error {
	name := redactedURLs([]*url.URL{u})
	switch {
	case u.User != nil:
		return fmt.Errorf("--etcd-endpoints %q: want no user in it: set %s and %s", name, etcdUser, etcdPass)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("--etcd-endpoints %q: want nothing after the port", name)
	case u.Scheme != scheme:
		// The client uses the scheme of the first endpoint for all.
		return fmt.Errorf("--etcd-endpoints %q: want http for all endpoints, or https for all", name)
	}
	return nil
}

// etcdTLS returns the configuration for TLS with etcd. It returns nil if the environment names no
// certificates: then https uses the system's authorities.
func etcdTLS(getenv func(string) string) (*tls.Config, error) {
	if err := requireBoth(getenv, etcdCert, etcdKey); err != nil {
		return nil, err
	}
	ca, cert, key := getenv(etcdCA), getenv(etcdCert), getenv(etcdKey)
	if ca == "" && cert == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		roots, err := readCA(etcdCA, ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = roots
	}
	if cert != "" {
		pair, err := readKeyPair(etcdCert+", "+etcdKey, cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
