package app

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/exposition"

	"github.com/prometheus/common/model"
)

// pushURLFromFlags returns the Pushgateway's URL. The later releases of the original gave it with
// --host and --port.
func pushURLFromFlags(f flags) string {
	if f.isSet("push-url") || f.isSet("metrics-port") || !f.isSet("host") && !f.isSet("port") {
		return f.pushURL
	}
	host := strings.Trim(f.host, "[]")
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(f.port))
}

// parsePushURL parses the Pushgateway's URL.
func parsePushURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || !validPort(u.Port()) || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("--push-url %q: malformed: want http(s)://[user:password@]host[:port][/path]", cli.Redact(s))
	}
	return u, nil
}

// validPort reports whether a URL's port is valid or absent.
func validPort(s string) bool {
	n, err := strconv.Atoi(s)
	return s == "" || err == nil && n >= 1 && n <= 65535
}

// groupingFlag is the value of --push-grouping.
type groupingFlag struct{ labels *map[string]string }

func (g *groupingFlag) Set(s string) error {
	name, value, found := strings.Cut(s, "=")
	if !found || !model.LegacyValidation.IsValidLabelName(name) || strings.HasPrefix(name, "__") || value == "" {
		return cli.FlagError("push-grouping", s, "name=value, where name can be a label's")
	}
	if exposition.HasLabel(name) {
		return cli.FlagError("push-grouping", s, "a label that no metric has")
	}
	if *g.labels == nil {
		*g.labels = make(map[string]string)
	}
	if _, again := (*g.labels)[name]; again {
		return cli.FlagError("push-grouping", s, "each label once")
	}
	(*g.labels)[name] = value
	return nil
}

func (g *groupingFlag) String() string { return "" }

// IsCumulative lets kingpin take the flag more than once.
func (g *groupingFlag) IsCumulative() bool { return true }
