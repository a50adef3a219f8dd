package expose

import (
	"net/http"
	"net/http/pprof"
)

// WithProfiles is h that answers on /debug/pprof/ with profiles of the program, too.
// The command line is not among them: a password may be in it.
func WithProfiles(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("/debug/pprof/", readOnly(pprof.Index))
	mux.HandleFunc("/debug/pprof/profile", readOnly(pprof.Profile))
	mux.HandleFunc("/debug/pprof/trace", readOnly(pprof.Trace))
	return mux
}
