package exposition

import (
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/common/expfmt"
)

// Handler returns the handler of the metrics endpoint, which serves the format that the client
// requests. OpenMetrics is not among the formats, because it would append _total to the names of the
// original's two counters. A standby leaves out the Fleet's metrics, so that two instances in one
// scrape job do not double every sum. /metrics?standby=1 has them on a standby, too.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	formats := expfmt.DefaultAcceptedFormats()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		renderers := m.formats
		if m.standby != nil && m.standby() && r.URL.Query().Get("standby") != "1" {
			renderers = m.programFormats
		}
		format, reader := expfmt.NegotiateAccept(r.Header, formats...), &reader{connection: http.NewResponseController(w)}
		rendered := m.cache.render(renderers[format.FormatType()], reader)
		defer m.cache.release(rendered, reader)
		if rendered.err != nil {
			log.Error("The metrics cannot be written", "error", rendered.err)
			http.Error(w, "the metrics cannot be written: "+rendered.err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(format))
		w.Header().Set("Vary", "Accept, Accept-Encoding")
		body := rendered.body.Bytes()
		if AcceptsGzip(r.Header) {
			w.Header().Set("Content-Encoding", "gzip")
			body = rendered.gzip()
		}
		rendered.send(w, reader, body)
	})
}

// AcceptsGzip reports whether a client accepts gzip and does not prefer identity (RFC 9110,
// section 12.5.3). A client without Accept-Encoding gets no gzip.
func AcceptsGzip(h http.Header) bool {
	gzip, others, identity := -1.0, 0.0, 0.0
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, parameters, weighed := strings.Cut(part, ";")
		weight := 1.0
		if weighed {
			weight = quality(parameters)
		}
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			gzip = weight
		case "*":
			others = weight
		case "identity":
			identity = weight
		}
	}
	if gzip < 0 {
		gzip = others
	}
	return gzip > 0 && gzip >= identity
}

// qualityPattern matches a weight as in section 12.4.2 of RFC 9110.
var qualityPattern = regexp.MustCompile(`^[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*$`)

// quality returns the weight in the parameters. It is 0 if it cannot be parsed, because every client
// can read an uncompressed response.
func quality(parameters string) float64 {
	match := qualityPattern.FindStringSubmatch(parameters)
	if match == nil {
		return 0
	}
	weight, _ := strconv.ParseFloat(match[1], 64) // cannot fail on a match
	return weight
}

// PagesInUse returns how many renderings are in memory for clients. There are at most four.
func (m *Metrics) PagesInUse() int {
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	return len(m.cache.live)
}
