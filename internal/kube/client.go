// Package kube is a small client of the Kubernetes API: it lists and watches collections, and
// holds a Lease. Kubernetes' own client would make the program twice as large.
package kube

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ServiceAccountDir is where a pod finds its service account's token, its namespace and the API
// server's certificate authority.
const ServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	// reloadInterval is how often the token and the authority are read. Both are replaced while
	// the program runs, the token once per hour.
	reloadInterval = time.Minute

	responseTimeout = 10 * time.Second // for the headers of a response, and for the whole of a short one
	dialTimeout     = 5 * time.Second
	pingInterval    = 15 * time.Second // without any data on a connection
	maxResponse     = 64 << 10         // bytes of a response, apart from collections
	maxErrorText    = 300              // bytes of a response in an error

	// watchIdleTimeout is how long a watch may receive nothing before it is restarted. The API
	// server sends bookmarks once per minute if its etcd reports progress, as in clusters that
	// kubeadm made. Otherwise the watch of a quiet collection is restarted each time, which
	// costs almost nothing.
	watchIdleTimeout = 2 * time.Minute
)

// Client is a client of one API server. Its methods may be called concurrently.
type Client struct {
	server     string // without a slash at the end
	accountDir string // has token and ca.crt; empty: no credentials
	watchIdle  time.Duration

	mu       sync.Mutex
	loadedAt time.Time // when token and ca were read
	token    string
	ca       []byte
	http     *http.Client
}

// New returns a client of the API server at a URL that needs no credentials, such as that of
// kubectl proxy.
func New(server string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("want http(s)://host[:port][/path]")
	}
	c := &Client{server: strings.TrimSuffix(u.String(), "/"), watchIdle: watchIdleTimeout}
	c.http, err = newHTTP(nil)
	return c, err
}

// NewWithDialer is like New, with a function that makes the connections.
func NewWithDialer(server string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Client, error) {
	c, err := New(server)
	if err == nil {
		c.http.Transport.(*http.Transport).DialContext = dial
	}
	return c, err
}

// NewInCluster returns a client with the credentials of a pod: the environment names the server,
// and dir (ServiceAccountDir) has the token and the authority.
func NewInCluster(getenv func(string) string, dir string) (*Client, error) {
	host := getenv("KUBERNETES_SERVICE_HOST")
	if host == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST is not set: outside of a cluster want --kubernetes-api, such as http://localhost:8001 of kubectl proxy")
	}
	port := cmp.Or(getenv("KUBERNETES_SERVICE_PORT_HTTPS"), getenv("KUBERNETES_SERVICE_PORT"), "443")
	c := &Client{server: "https://" + net.JoinHostPort(host, port), accountDir: dir, watchIdle: watchIdleTimeout}
	if err := c.reload(); err != nil {
		return nil, fmt.Errorf("read the service account: %w", err)
	}
	return c, nil
}

// PodNamespace returns the Kubernetes namespace of the program's pod, from dir
// (ServiceAccountDir). It is empty outside of a cluster.
func PodNamespace(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "namespace"))
	return strings.TrimSpace(string(b))
}

// CloseIdleConnections closes connections that are not in use.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.http.CloseIdleConnections()
}

// Server returns the API server's URL.
func (c *Client) Server() string { return c.server }

// reload reads the token and the authority.
func (c *Client) reload() error {
	token, err := os.ReadFile(filepath.Join(c.accountDir, "token"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(c.accountDir, "ca.crt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.loadedAt, c.token = time.Now(), strings.TrimSpace(string(token))
	if c.http != nil && bytes.Equal(ca, c.ca) {
		return nil
	}
	client, err := newHTTP(ca)
	if err != nil {
		return err
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.ca, c.http = ca, client
	return nil
}

// newHTTP returns a client that trusts the authority, or those of the system if there is none.
func newHTTP(ca []byte) (*http.Client, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != nil {
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("ca.crt holds no certificate")
		}
	}
	dialer := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: pingInterval, Interval: dialTimeout, Count: 2}}
	return &http.Client{
		// A redirect would send the token to another server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dialer.DialContext,
			TLSClientConfig:       trust,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: responseTimeout,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
			HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: dialTimeout},
		},
	}, nil
}

// credentials returns the current token and client. If the files cannot be read, it returns what
// was read before, which may still be valid.
func (c *Client) credentials() (string, *http.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accountDir != "" && time.Since(c.loadedAt) > reloadInterval {
		_ = c.reload()
	}
	return c.token, c.http
}

// expireCredentials makes the next request read the token and the authority again.
func (c *Client) expireCredentials() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loadedAt = time.Time{}
}

// StatusError is a response of the API server that reports an error.
type StatusError struct {
	Code       int
	Message    string        // the API server's own
	RetryAfter time.Duration // how long the server asks the client to wait, a minute at most; 0: it does not ask
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%d %s: %s", e.Code, http.StatusText(e.Code), e.Message)
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (the server asks for a pause of %v)", e.RetryAfter)
	}
	return text
}

// IsStatus reports whether the API server responded with this code.
func IsStatus(err error, code int) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == code
}

// do sends a request. The caller closes the body of the response, whose code is one of the 200s.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	target := c.server + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "dynamo-metrics")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	token, client := c.credentials()
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		c.expireCredentials() // the server's certificate may be from a new authority
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, which is long
		}
		return nil, err
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusUnauthorized {
		c.expireCredentials()
	}
	return nil, newStatusError(response)
}

// newStatusError returns the error that a response reports.
func newStatusError(r *http.Response) *StatusError {
	b, _ := io.ReadAll(io.LimitReader(r.Body, maxResponse))
	status := parseStatus(b)
	status.Code = r.StatusCode
	if status.Message == "" {
		status.Message = truncate(strings.Join(strings.Fields(string(b)), " "))
	}
	status.RetryAfter = max(status.RetryAfter, retryAfter(r.Header.Get("Retry-After")))
	return status
}

// parseStatus parses a Status object, in which the API server reports errors. Its code is 0 if
// it has none.
func parseStatus(b []byte) *StatusError {
	var status struct {
		Code    int
		Message string
		Details struct{ RetryAfterSeconds int }
	}
	_ = json.Unmarshal(b, &status) // a proxy's response has none of these fields
	return &StatusError{
		Code:       status.Code,
		Message:    truncate(status.Message),
		RetryAfter: clampRetryAfter(time.Duration(min(status.Details.RetryAfterSeconds, 3600)) * time.Second),
	}
}

// truncate shortens a message for an error.
func truncate(message string) string {
	if len(message) > maxErrorText {
		return strings.ToValidUTF8(message[:maxErrorText], "") + "…"
	}
	return message
}
