package collect

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// WorkerURLs maps each worker to the URL of its own metrics. The zero WorkerURLs has no
// templates.
type WorkerURLs struct {
	templates map[string]urlTemplate // by component; "" is for all others
}

// urlTemplate is a URL with placeholders. Their values are from the network, so each part of
// the URL is escaped separately.
type urlTemplate struct{ scheme, host, path, query string }

// placeholderPattern matches the placeholders in a template.
var placeholderPattern = regexp.MustCompile(`\{[^{}]*\}`)

// placeholders lists the valid placeholders.
var placeholders = []string{"{host}", "{namespace}", "{component}", "{endpoint}", "{worker_id}", "{worker_id_hex}"}

// Add adds a template, either for one component ("component=template") or for all others.
func (u *WorkerURLs) Add(s string) error {
	component, text := "", s
	if name, rest, found := strings.Cut(s, "="); found && !strings.Contains(name, "://") {
		if component, text = name, rest; component == "" {
			return errors.New("it has no component before the =")
		}
	}
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	if _, again := u.templates[component]; again {
		return errors.New("there may be one template for each component, and one for all others")
	}
	if u.templates == nil {
		u.templates = make(map[string]urlTemplate)
	}
	u.templates[component] = t
	return nil
}

// HasTLS reports whether a template has the scheme https. URLs from the registry never have it.
func (u *WorkerURLs) HasTLS() bool {
	for _, t := range u.templates {
		if t.scheme == "https" {
			return true
		}
	}
	return false
}

func parseTemplate(s string) (t urlTemplate, err error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found || scheme != "http" && scheme != "https" {
		return t, errors.New("it begins with neither http:// nor https://")
	}
	if strings.ContainsAny(rest, "#@") {
		return t, errors.New("neither a user nor a fragment may be in it")
	}
	t.scheme = scheme
	rest, t.query, _ = strings.Cut(rest, "?")
	t.host, t.path, _ = strings.Cut(rest, "/")
	for _, word := range placeholderPattern.FindAllString(s, -1) {
		if !slices.Contains(placeholders, word) {
			return t, fmt.Errorf("%s is not a placeholder: want one of %s", word, strings.Join(placeholders, ", "))
		}
	}
	if strings.ContainsAny(placeholderPattern.ReplaceAllString(s, ""), "{}") {
		return t, errors.New("it has an unmatched brace")
	}
	example := fleet.ScrapeTarget{Instance: fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 1}, Transport: "192.0.2.1:1/"}
	if t.fill("n", example) == "" {
		return t, errors.New("it is not a valid URL")
	}
	return t, nil
}

// fill returns the template's URL for a worker. It is empty if a placeholder has no value, or
// one that is invalid at its place.
func (t urlTemplate) fill(namespace string, p fleet.ScrapeTarget) string {
	transport, _, _ := strings.Cut(p.Transport, "/")
	host, _, _ := net.SplitHostPort(transport)
	if host == "" && strings.Contains(t.host+t.path+t.query, "{host}") {
		return ""
	}
	replace := func(s string, escape func(string) string) string {
		return strings.NewReplacer(
			"{host}", escape(host), "{namespace}", escape(namespace), "{component}", escape(p.Component), "{endpoint}", escape(p.Name),
			"{worker_id}", strconv.FormatUint(p.ID, 10), "{worker_id_hex}", wire.HexID(p.ID),
		).Replace(s)
	}
	filled := t.scheme + "://" + replace(t.host, hostLiteral) + "/" + replace(t.path, url.PathEscape)
	if t.path == "" {
		filled += "metrics"
	}
	if t.query != "" {
		filled += "?" + replace(t.query, url.QueryEscape)
	}
	u, err := url.Parse(filled)
	if err != nil || u.User != nil || u.Fragment != "" || !validHost(u.Host, t.scheme) {
		return ""
	}
	return filled
}

// hostLiteral puts an IPv6 address in brackets. It replaces a name that would end the host
// with an invalid one.
func hostLiteral(s string) string {
	if ip := net.ParseIP(s); ip != nil && strings.Contains(s, ":") {
		return "[" + s + "]"
	}
	if strings.ContainsAny(s, "/?#@\\:") {
		return " "
	}
	return s
}

// validHost reports whether a program can connect to a host, with or without a port.
func validHost(host, scheme string) bool {
	if _, _, err := net.SplitHostPort(host); err != nil {
		host += map[string]string{"http": ":80", "https": ":443"}[scheme]
	}
	return wire.ValidAddress("tcp://" + host)
}

// URL returns the URL of a worker's metrics, from the template for its component, or else from
// the registry, or else from its model card. It is empty if none has it.
func (u *WorkerURLs) URL(namespace string, p fleet.ScrapeTarget) string {
	t, found := u.templates[p.Component]
	if !found {
		t, found = u.templates[""]
	}
	switch {
	case found:
		return t.fill(namespace, p)
	case p.Metrics != "" && wire.ValidAddress("tcp://"+p.Metrics):
		return "http://" + p.Metrics + "/metrics"
	}
	return ""
}
