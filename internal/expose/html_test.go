package expose

import (
	"html"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
)

func TestThePageForPeople(t *testing.T) {
	w := get(t, handler(readyFleet(t)), "/")
	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
		"X-Content-Type-Options":  "nosniff",
	} {
		equal(t, name, w.Header().Get(name), want)
	}
	golden(t, "index.html", w.Body.String())
}

func TestThePageForPeopleSaysWhatIsMissing(t *testing.T) {
	f := fleetAt(everything, true)
	f.Tally.Etcd.Use()
	has(t, get(t, handler(f), "/").Body.String(), "every endpoint in the namespace dynamo",
		"Not ready: etcd is not connected.", "No endpoint is known yet.")
}

func TestThePageForPeopleSaysWhatIsWatched(t *testing.T) {
	for target, want := range map[fleet.Target]string{
		everything:                "Watching every endpoint in",
		{Component: "backend"}:    "Watching every endpoint of backend in",
		fleet.Target(loadMetrics): "Watching backend/load_metrics in",
	} {
		has(t, get(t, handler(fleetAt(target, true)), "/").Body.String(), want)
	}
}

func TestThePageForPeopleShowsEndpointsThatAreNotCounted(t *testing.T) {
	f := fleetAt(everything, true)
	f.Hit(977, 3, 1)
	has(t, get(t, handler(f), "/").Body.String(), "unknown/unknown – – – – – 1")
}

func TestThePageForPeopleEscapesNames(t *testing.T) {
	const evil = `<script>alert("&")</script>`
	f := fleetAt(everything, true)
	f.Register(fleet.Instance{Endpoint: fleet.Endpoint{Component: evil, Name: evil}, ID: 1}, fleet.Registration{NATS: true})
	h := Handler(f, evil, metricsOf(f), slog.New(slog.DiscardHandler))
	page := get(t, h, "/").Body.String()
	if strings.Contains(page, "<script") {
		t.Errorf("a name became a script:\n%s", page)
	}
	has(t, html.UnescapeString(page), evil+"/"+evil, "namespace <b>"+evil+"</b>", "<title>Dynamo metrics: "+evil+"</title>")
}

func TestThePageForPeopleLinksToWhatThereIs(t *testing.T) {
	h := handler(readyFleet(t))
	page := get(t, h, "/").Body.String()
	links := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1)
	equal(t, "links", len(links), 3)
	for _, l := range links {
		equal(t, l[1], get(t, h, "/"+l[1]).Code, http.StatusOK)
	}
}

// has fails the test unless the page, its tags left out, has all of these.
func has(t *testing.T, page string, wants ...string) {
	t.Helper()
	text := regexp.MustCompile(`</?(td|tr|p|b)[^>]*>`).ReplaceAllString(page, " ")
	text = strings.Join(strings.Fields(text), " ")
	for _, want := range wants {
		if !strings.Contains(text, want) && !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
}
