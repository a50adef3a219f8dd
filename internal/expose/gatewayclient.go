package expose

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
	// maxAnswer bounds, in bytes, how much is read of a gateway's answer.
	maxResponse = 4 << 10

	// maxHops is how many requests a push may take where the gateway has moved.
	maxRedirects = 10

	// maxPlace bounds, in bytes, how much is said of where it points.
	maxLocation = 256
)

// gatewayClient is the client of a Pushgateway. It reads no more than maxAnswer of an answer,
// and ends with its context: the push package has no way to give one to a deletion. Each
// answer from 200 to 299 is a success, as it was for the original: of those the package itself
// knows 200 and 202 alone, and for a deletion 202. The user and password that the gateway has
// go to no other server, wherever it points.
type gatewayClient struct {
	ctx     context.Context
	gateway *url.URL
}

func (c gatewayClient) Do(r *http.Request) (*http.Response, error) {
	refusal := ""
	client := http.Client{CheckRedirect: func(next *http.Request, before []*http.Request) error {
		if refusal = c.refusal(next, before); refusal != "" {
			next.URL.User = nil
			refusal = fmt.Sprintf("it points to %.*s, and is not followed, since %s: set --push-url to where the Pushgateway is", maxLocation, next.URL, refusal)
			return http.ErrUseLastResponse
		}
		if user := c.gateway.User; user != nil { // the library has its own idea of who is the same
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

// stays says why a redirect is not followed; empty if it is.
func (c gatewayClient) refusal(next *http.Request, before []*http.Request) string {
	switch {
	case next.Method != before[0].Method:
		// Most turn it into a GET: a log-in page that answers 200 is no push that worked.
		return "the push would be a " + next.Method + " there"
	case c.gateway.User != nil && !sameOrigin(next.URL, c.gateway):
		return "its user and password are for " + c.gateway.Host + " alone"
	case len(before) >= maxRedirects:
		return fmt.Sprintf("it has pointed elsewhere %d times", maxRedirects)
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
