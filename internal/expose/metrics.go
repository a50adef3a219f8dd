package expose

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// handler answers with the metrics page: in the text format by the fast way, in
// others by the library's. On a standby it leaves the Fleet out, so that two programs
// behind one scrape job do not double every sum; /metrics?standby=1 shows it.
func (m *Metrics) handler(log *slog.Logger) http.Handler {
	options := promhttp.HandlerOpts{
		// OpenMetrics would put _total behind the names of the original's two counters.
		EnableOpenMetrics: false,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelError),
	}
	formats, rest := expfmt.DefaultAcceptedFormats(), promhttp.HandlerFor(m.rest, options)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.standby != nil && m.standby() && r.URL.Query().Get("standby") != "1" {
			rest.ServeHTTP(w, r)
			return
		}
		format, reader := expfmt.NegotiateAccept(r.Header, formats...), &reader{connection: http.NewResponseController(w)}
		page := m.press.print(m.forms[format.FormatType()], reader)
		defer m.press.release(page, reader)
		if page.err != nil {
			log.Error("The metrics page cannot be written", "error", page.err)
			http.Error(w, "the metrics page cannot be written: "+page.err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(format))
		w.Header().Add("Vary", "Accept-Encoding")
		body := page.body.Bytes()
		if AcceptsGzip(r.Header) {
			w.Header().Set("Content-Encoding", "gzip")
			body = page.zip()
		}
		page.send(w, reader, body)
	})
}

// AcceptsGzip reports whether a client takes gzip (RFC 9110, section 12.5.3).
func AcceptsGzip(h http.Header) bool {
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, quality, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q := strings.ReplaceAll(quality, " ", "")
			return q != "q=0" && !strings.HasPrefix(q, "q=0.0") || strings.ContainsAny(strings.TrimPrefix(q, "q=0."), "123456789")
		}
	}
	return false
}
