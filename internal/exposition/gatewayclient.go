package exposition

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const (
	// maxResponse is how many bytes of a gateway's response are read.
	maxResponse = 4 << 10

	// maxRedirects is how many requests a push may take if the gateway redirects it.
	maxRedirects = 10

	// maxLocation is how many bytes of a redirect's location an error shows.
	maxLocation = 256
)

// gatewayClient is the HTTP client for a Pushgateway. It reads at most maxResponse bytes of a
// response. It ends with its context, because the push package cannot pass one to a deletion. Each
// status from 200 to 299 is a success, as it was for the original: the push package accepts only
// 200 and 202, and only 202 for a deletion. The gateway's user and password are sent to no other
// server, whatever the redirects.
type gatewayClient struct {
	ctx     context.Context
	gateway *url.URL
}

func (c gatewayClient) Do(r *http.Request) (*http.Response, error) {
	refusal := ""
	client := http.Client{CheckRedirect: func(next *http.Request, before []*http.Request) error {
		if refusal = c.refusal(next, before); refusal != "" {
			next.URL.User = nil
			refusal = fmt.Sprintf("the redirect to %.*s is not followed because %s: set --push-url to the Pushgateway's address", maxLocation, next.URL, refusal)
			return http.ErrUseLastResponse
		}
		if user := c.gateway.User; user != nil { // net/http compares hosts by other rules
			password, _ := user.Password()
			next.SetBasicAuth(user.Username(), password)
		}
		return nil
	}}
	resp, err := client.Do(r.WithContext(c.ctx))
	if err != nil {
		return nil, err
	}
	if refusal != "" {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", resp.Status, refusal)
	}
	if resp.StatusCode/100 == 2 {
		resp.StatusCode = http.StatusAccepted
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxResponse), resp.Body}
	return resp, nil
}

// refusal returns why a redirect is not followed, or nothing if it is followed.
func (c gatewayClient) refusal(next *http.Request, before []*http.Request) string {
	switch {
	case next.Method != before[0].Method:
		// Most redirects turn a PUT into a GET. A login page's 200 must not count as a successful push.
		return "the push would become a " + next.Method
	case c.gateway.User != nil && !sameOrigin(next.URL, c.gateway):
		return "the user and password are only for " + c.gateway.Host
	case len(before) >= maxRedirects:
		return fmt.Sprintf("it is redirect number %d", maxRedirects)
	}
	return ""
}

// sameOrigin reports whether two URLs have the same scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}
