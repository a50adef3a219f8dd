package zmtp

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// hostPort returns the address to dial for a ZeroMQ endpoint.
func hostPort(endpoint string) (string, error) {
	scheme, rest, ok := strings.Cut(endpoint, "://")
	if !ok || scheme != "tcp" {
		return "", fmt.Errorf("address %q: want tcp://host:port", endpoint)
	}
	if strings.Contains(rest, ";") {
		return "", fmt.Errorf("address %q: want one host, without a source address before it", endpoint)
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return "", fmt.Errorf("address %q: want tcp://host:port: %w", endpoint, err)
	}
	if host == "*" || host == "" {
		return "", fmt.Errorf("address %q: is for binding; want a host to connect to", endpoint)
	}
	if strings.ContainsAny(host, "/ \t\r\n") {
		return "", fmt.Errorf("address %q: %q is not a host", endpoint, host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("address %q: want a port from 1 to 65535", endpoint)
	}
	return net.JoinHostPort(host, port), nil
}
