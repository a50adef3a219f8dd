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
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
