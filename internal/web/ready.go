package web

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"dynamo-metrics/internal/monitor"
)

// serveReady answers a readiness probe. With ?strict=true the program is not ready while any input
// is missing.
func (s *server) serveReady(w http.ResponseWriter, r *http.Request) {
	strict := false
	if given := r.URL.Query().Get("strict"); given != "" {
		var err error
		if strict, err = strconv.ParseBool(given); err != nil {
			http.Error(w, fmt.Sprintf("strict is %q: want true or false", given), http.StatusBadRequest)
			return
		}
	}
	missing := monitor.Missing(s.o.Fleet)
	switch ready := monitor.Ready(s.o.Fleet); {
	case !ready || strict && len(missing) > 0:
		http.Error(w, "not ready: "+strings.Join(missing, ", "), http.StatusServiceUnavailable)
	case len(missing) > 0:
		fmt.Fprintln(w, "ready, but: "+strings.Join(missing, ", "))
	default:
		fmt.Fprintln(w, "ready")
	}
}
