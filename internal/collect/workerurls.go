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

// WorkerURLs are where workers show metrics of their own. The zero WorkerURLs knows what
// the registry says.
type WorkerURLs struct {
	templates map[string]urlTemplate // by component; "" is of all others
}

// urlTemplate is an URL with names in braces. What they stand for comes from the network,
// so that each part of the URL is filled for itself.
type urlTemplate struct{ scheme, host, path, query string }

// braces are the places of a template.
var placeholderPattern = regexp.MustCompile(`\{[^{}]*\}`)

// urlWords are what may stand in braces.
var placeholders = []string{"{host}", "{namespace}", "{component}", "{endpoint}", "{worker_id}", "{worker_id_hex}"}

// Add takes a template, or component=template.
func (u *WorkerURLs) Add(s string) error {
	component, text := "", s
	if name, rest, found := strings.Cut(s, "="); found && !strings.Contains(name, "://") {
		if component, text = name, rest; component == "" {
			return errors.New("no component stands before the =")
		}
	}
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	if _, again := u.templates[component]; again {
		return errors.New("each component, and all the others, have one template")
	}
	if u.templates == nil {
		u.templates = make(map[string]urlTemplate)
	}
	u.templates[component] = t
	return nil
}

// HasTLS reports whether a template's pages are read over TLS. The registry's never are.
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
			return t, fmt.Errorf("%s stands for nothing: there are %s", word, strings.Join(placeholders, ", "))
		}
	}
	if strings.ContainsAny(placeholderPattern.ReplaceAllString(s, ""), "{}") {
		return t, errors.New("a brace has no other")
	}
	example := fleet.ScrapeTarget{Instance: fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: 1}, Transport: "192.0.2.1:1/"}
	if t.fill("n", example) == "" {
		return t, errors.New("it is not an URL, whatever is filled in")
	}
	return t, nil
}

// fill is the template's URL for a worker; empty if a word in it stands for nothing, or
// for what cannot stand there.
func (t urlTemplate) fill(namespace string, p fleet.ScrapeTarget) string {
	transport, _, _ := strings.Cut(p.Transport, "/")
	host, _, _ := net.SplitHostPort(transport)
	if host == "" && strings.Contains(t.host+t.path+t.query, "{host}") {
		return ""
	}
	with := func(s string, escape func(string) string) string {
		return strings.NewReplacer(
			"{host}", escape(host), "{namespace}", escape(namespace), "{component}", escape(p.Component), "{endpoint}", escape(p.Name),
			"{worker_id}", strconv.FormatUint(p.ID, 10), "{worker_id_hex}", wire.HexID(p.ID),
		).Replace(s)
	}
	filled := t.scheme + "://" + with(t.host, hostLiteral) + "/" + with(t.path, url.PathEscape)
	if t.path == "" {
		filled += "metrics"
	}
	if t.query != "" {
		filled += "?" + with(t.query, url.QueryEscape)
	}
	u, err := url.Parse(filled)
	if err != nil || u.User != nil || u.Fragment != "" || !validHost(u.Host, t.scheme) {
		return ""
	}
	return filled
}

// bracketed is an address of IPv6 as URLs have it. Of a name that would end the host it
// leaves what no host may have.
func hostLiteral(s string) string {
	if ip := net.ParseIP(s); ip != nil && strings.Contains(s, ":") {
		return "[" + s + "]"
	}
	if strings.ContainsAny(s, "/?#@\\:") {
		return " "
	}
	return s
}

// validHost reports whether a host with a port, or without one, can be connected to.
func validHost(host, scheme string) bool {
	if _, _, err := net.SplitHostPort(host); err != nil {
		host += map[string]string{"http": ":80", "https": ":443"}[scheme]
	}
	return wire.ValidAddress("tcp://" + host)
}

// Of is where a worker's page is: where the template of its component says, else the
// registry, else its model card. It is empty where nobody says it.
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
