// Package kube is a client of the Kubernetes API for the little that this program
// needs of it: to list and watch collections, and to hold a Lease. Kubernetes' own
// client would make the program twice as large.
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

// ServiceAccount is where a pod has its service account's token, namespace and the API
// server's authority.
const ServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	// rereadAfter is how old the token and the authority may become: both are replaced
	// while the program runs, the token once an hour.
	reloadInterval = time.Minute

	responseTimeout = 10 * time.Second // the head of an answer, and the whole of a short one
	dialTimeout     = 5 * time.Second
	pingInterval    = 15 * time.Second // without a byte on a connection
	maxResponse     = 64 << 10         // bytes of an answer that is none of a collection
	maxErrorText    = 300              // bytes of it in an error

	// idleWatch is how long a watch may bring nothing before it is begun anew: the API
	// server sends bookmarks once a minute, if its etcd tells it of progress as kubeadm's
	// does. Else the watch of a quiet collection is begun anew each time, which costs next
	// to nothing.
	watchIdleTimeout = 2 * time.Minute
)

// Client talks to one API server. Its methods may be called at once.
type Client struct {
	server     string // without a slash at its end
	accountDir string // with token and ca.crt; empty: neither
	watchIdle  time.Duration

	mu       sync.Mutex
	loadedAt time.Time
	token    string
	ca       []byte
	http     *http.Client
}

// At is a client of the API server at a URL which asks for no credentials, such as
// that of kubectl proxy.
func New(server string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("want http(s)://host[:port][/path]")
	}
	c := &Client{server: strings.TrimSuffix(u.String(), "/"), watchIdle: watchIdleTimeout}
	c.http, err = newHTTP(nil)
	return c, err
}

// AtBy is a client like At's whose connections dial makes.
func NewWithDialer(server string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Client, error) {
	c, err := New(server)
	if err == nil {
		c.http.Transport.(*http.Transport).DialContext = dial
	}
	return c, err
}

// InCluster is a client with the credentials that a pod is given: getenv tells the
// server, and dir (ServiceAccount) has token and authority.
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

// OwnNamespace is the Kubernetes namespace that the program's pod is in, as dir
// (ServiceAccount) says; empty outside of a cluster.
func PodNamespace(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "namespace"))
	return strings.TrimSpace(string(b))
}

// CloseIdleConnections closes connections that no one uses now.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.http.CloseIdleConnections()
}

// Server is the API server's URL.
func (c *Client) Server() string { return c.server }

// reread reads the token and the authority again.
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

// newHTTP is a client that trusts the authority; without one, those of the system.
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
		// Another server that the API server names would get our token.
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

// credentials are the token and the client of the moment. Files that cannot be read
// now leave what was read before: it may still be good.
func (c *Client) credentials() (string, *http.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accountDir != "" && time.Since(c.loadedAt) > reloadInterval {
		_ = c.reload()
	}
	return c.token, c.http
}

// refresh has the token read again before the next request.
func (c *Client) expireCredentials() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loadedAt = time.Time{}
}

// Refused is an answer of the API server that says no.
type StatusError struct {
	Code       int
	Message    string        // the API server's own
	RetryAfter time.Duration // how long it asks to wait before the next attempt, a minute at most; 0: it does not say
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%d %s: %s", e.Code, http.StatusText(e.Code), e.Message)
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (it asks to wait for %v)", e.RetryAfter)
	}
	return text
}

// IsRefused reports whether the API server answered with this code.
func IsStatus(err error, code int) bool {
	var refused *StatusError
	return errors.As(err, &refused) && refused.Code == code
}

// do makes a request. The body of its answer, which says yes, is the caller's to close.
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
		c.expireCredentials() // its certificate may be of a new authority
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

// refusal is what an answer says that is none of the 200s.
func newStatusError(r *http.Response) *StatusError {
	b, _ := io.ReadAll(io.LimitReader(r.Body, maxResponse))
	refused := parseStatus(b)
	refused.Code = r.StatusCode
	if refused.Message == "" {
		refused.Message = truncate(strings.Join(strings.Fields(string(b)), " "))
	}
	refused.RetryAfter = max(refused.RetryAfter, retryAfter(r.Header.Get("Retry-After")))
	return refused
}

// statusOf reads a Status, as the API server answers with where it says no. Its code is 0
// where there is none.
func parseStatus(b []byte) *StatusError {
	var status struct {
		Code    int
		Message string
		Details struct{ RetryAfterSeconds int }
	}
	_ = json.Unmarshal(b, &status) // another server's word has none of these
	return &StatusError{
		Code:       status.Code,
		Message:    truncate(status.Message),
		RetryAfter: clampRetryAfter(time.Duration(min(status.Details.RetryAfterSeconds, 3600)) * time.Second),
	}
}

// shorten makes a message fit for an error.
func truncate(message string) string {
	if len(message) > maxErrorText {
		return strings.ToValidUTF8(message[:maxErrorText], "") + "…"
	}
	return message
}
