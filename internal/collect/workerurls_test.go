package collect

import (
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
)

// newWorkerURLs returns WorkerURLs with these templates.
func newWorkerURLs(t *testing.T, templates ...string) *WorkerURLs {
	t.Helper()
	var u WorkerURLs
	for _, s := range templates {
		if err := u.Add(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return &u
}

func TestWorkerURLsFillTemplates(t *testing.T) {
	worker := func(change func(*fleet.ScrapeTarget)) fleet.ScrapeTarget {
		p := fleet.ScrapeTarget{
			Instance:  fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, ID: 7587889083983638072},
			Transport: "192.0.2.2:41413/694d/lab/backend/generate",
			Metrics:   "192.0.2.2:9090",
		}
		if change != nil {
			change(&p)
		}
		return p
	}
	plain := worker(nil)
	named := func(component, endpoint string) fleet.ScrapeTarget {
		return worker(func(p *fleet.ScrapeTarget) { p.Endpoint = fleet.Endpoint{Component: component, Name: endpoint} })
	}
	at := func(transport string) fleet.ScrapeTarget {
		return worker(func(p *fleet.ScrapeTarget) { p.Transport = transport })
	}
	metrics := func(address string) fleet.ScrapeTarget {
		return worker(func(p *fleet.ScrapeTarget) { p.Metrics = address })
	}
	for _, c := range []struct {
		templates string
		target    fleet.ScrapeTarget
		want      string
	}{
		{"", plain, "http://192.0.2.2:9090/metrics"},
		{"", metrics("[2001:db8::1]:9090"), "http://[2001:db8::1]:9090/metrics"},
		{"", metrics("worker-0.svc:9090"), "http://worker-0.svc:9090/metrics"},
		{"", metrics(""), ""},
		{"", metrics("192.0.2.2"), ""},
		{"", metrics("192.0.2.2:0"), ""},
		{"", metrics("evil.example/x?:9090"), ""},
		{"", metrics("user@192.0.2.2:9090"), ""},
		{"http://{host}:9400", plain, "http://192.0.2.2:9400/metrics"},
		{"http://{host}:9400/", plain, "http://192.0.2.2:9400/metrics"},
		{"http://{host}:9400/engine/metrics", plain, "http://192.0.2.2:9400/engine/metrics"},
		{"http://{host}", plain, "http://192.0.2.2/metrics"},
		{"https://{host}:9400", at("[2001:db8::1]:5/x"), "https://[2001:db8::1]:9400/metrics"},
		{"http://{host}:9400", at("worker-0:5"), "http://worker-0:9400/metrics"},
		{"http://{host}:9400", at(""), ""},
		{"http://{host}:9400", at("elsewhere"), ""},
		{"http://proxy:1/{namespace}/{component}/{endpoint}/{worker_id}/{worker_id_hex}", plain, "http://proxy:1/my%20lab/backend/generate/7587889083983638072/694d98eb65e8ae38"},
		{"http://proxy:1/metrics?of={component}&ns={namespace}", named("a/b&c", "g"), "http://proxy:1/metrics?of=a%2Fb%26c&ns=my+lab"},
		{"http://proxy:1/{component}", named("../a?b#c", "g"), "http://proxy:1/..%2Fa%3Fb%23c"},
		{"http://{component}.svc:1", named("decode", "g"), "http://decode.svc:1/metrics"},
		{"http://{component}.svc:1", named("evil.example/", "g"), ""},
		{"http://{component}.svc:1", named("evil.example:80", "g"), ""},
		{"http://{component}.svc:1", named("user@evil", "g"), ""},
		{"http://{component}.svc:1", named("a b", "g"), ""},
		{"decode=http://192.0.2.9:1/m", plain, "http://192.0.2.2:9090/metrics"},
		{"decode=http://192.0.2.9:1/m", named("decode", "g"), "http://192.0.2.9:1/m"},
		{"decode=http://192.0.2.9:1/m http://192.0.2.8:1", plain, "http://192.0.2.8:1/metrics"},
		{"decode=http://192.0.2.9:1/m http://192.0.2.8:1", named("decode", "g"), "http://192.0.2.9:1/m"},
		{"http://192.0.2.8:1/?a=b", plain, "http://192.0.2.8:1/metrics?a=b"},
		{"a.b-c=http://192.0.2.8:1/?a=b", named("a.b-c", "g"), "http://192.0.2.8:1/metrics?a=b"},
	} {
		if got := newWorkerURLs(t, strings.Fields(c.templates)...).URL("my lab", c.target); got != c.want {
			t.Errorf("%s, of %+v: %q, want %q", c.templates, c.target, got, c.want)
		}
	}
}

func TestWorkerURLsRejectInvalidTemplates(t *testing.T) {
	for s, want := range map[string]string{
		"":                              "neither http:// nor https://",
		"{host}:9090":                   "neither http:// nor https://",
		"ftp://{host}":                  "neither http:// nor https://",
		"backend={host}:9090":           "neither http:// nor https://",
		"=http://{host}":                "no component",
		"http://":                       "a valid URL",
		"http://:9090":                  "a valid URL",
		"http://{host}:0":               "a valid URL",
		"http://{host}:99999":           "a valid URL",
		"http://{host}:port":            "a valid URL",
		"http://a b/":                   "a valid URL",
		"http://{host}:9090/%zz":        "a valid URL",
		"http://{pod}:9090":             "{pod} is not a placeholder: want one of {host}, {namespace}",
		"http://{host}/{}":              "{} is not a placeholder",
		"http://{host:9090":             "unmatched brace",
		"http://host}:9090":             "unmatched brace",
		"http://user:secret@{host}:1/m": "neither a user",
		"http://{host}:1/m#here":        "nor a fragment",
		"http://{host}:9090 b=http://x": "a valid URL",
	} {
		var u WorkerURLs
		err := u.Add(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows a secret: %v", s, err)
		}
	}
	for _, twice := range []string{"http://a", "b=http://a"} {
		if err := newWorkerURLs(t, "http://a", "b=http://a").Add(twice); err == nil || !strings.Contains(err.Error(), "one template") {
			t.Errorf("%q added twice: %v", twice, err)
		}
	}
}
