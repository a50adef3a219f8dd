package expose

import (
	"html/template"
	"net/http"

	"dynamo-metrics/internal/fleet"
)

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Dynamo metrics: {{.Namespace}}</title>
<style>
:root { color-scheme: light dark }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem; font-weight: 600 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
th { font-weight: 600 }
.trouble { border-left: 4px solid #c0392b; padding: .3rem .8rem }
</style>
</head>
<body>
<h1>Dynamo metrics</h1>
<p>Watching {{.Watched}} in the namespace <b>{{.Namespace}}</b>.</p>
{{if .Missing}}<p class="trouble">Not ready:{{range $i, $m := .Missing}}{{if $i}},{{end}} {{$m}}{{end}}.</p>{{end}}
{{if .Endpoints}}<table>
<tr><th scope="col">Endpoint</th><th scope="col">Answering</th><th scope="col">Silent</th><th scope="col">Unregistered</th><th scope="col">Malformed</th><th scope="col">Mean KV blocks in use</th><th scope="col">Hit-rate events</th></tr>
{{range .Endpoints}}<tr><td>{{.Component}}/{{.Name}}</td>
{{- if .Counted}}<td>{{.Answering}}</td><td>{{.Silent}}</td><td>{{.Unregistered}}</td><td>{{.Malformed}}</td>
{{- else}}<td>–</td><td>–</td><td>–</td><td>–</td>{{end -}}
<td>{{if .Load.OK}}{{printf "%.1f" .Load.V.Mean}}{{else}}–{{end}}</td><td>{{.HitEvents}}</td></tr>
{{end}}</table>
{{else}}<p>No endpoint is known yet.</p>
{{end}}
<p><a href="metrics">Metrics</a> · <a href="-/ready">Ready?</a> · <a href="-/healthy">Healthy?</a></p>
</body>
</html>
`))

// page shows people what is watched and how many workers there are.
func page(f *fleet.Fleet, namespace string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		h.Set("X-Content-Type-Options", "nosniff")
		// The only error left is that of a reader who has gone.
		_ = pageTemplate.Execute(w, struct {
			Namespace, Watched string
			Missing            []string
			Endpoints          []fleet.EndpointState
		}{namespace, watched(f.Target()), NotReady(f), f.Snapshot().Endpoints})
	})
}

func watched(t fleet.Target) string {
	switch {
	case t.Component == "":
		return "every endpoint"
	case t.Name == "":
		return "every endpoint of " + t.Component
	default:
		return fleet.Endpoint(t).String()
	}
}
