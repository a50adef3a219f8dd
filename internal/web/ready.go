package web

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"dynamo-metrics/internal/monitor"
)

// ready answers a readiness probe. With ?strict=true it asks whether anything is away.
func (s *server) serveReady(w http.ResponseWriter, r *http.Request) {
	strict := false
	if given := r.URL.Query().Get("strict"); given != "" {
		var err error
		if strict, err = strconv.ParseBool(given); err != nil {
			http.Error(w, fmt.Sprintf("strict is %q: want true or false", given), http.StatusBadRequest)
			return
		}
	}
	away := monitor.Missing(s.o.Fleet)
	switch is := monitor.Ready(s.o.Fleet); {
	case !is || strict && len(away) > 0:
		http.Error(w, "not ready: "+strings.Join(away, ", "), http.StatusServiceUnavailable)
	case len(away) > 0:
		fmt.Fprintln(w, "ready, but: "+strings.Join(away, ", "))
	default:
		fmt.Fprintln(w, "ready")
	}
}
