package testutil

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Get sends a GET request to the handler, with headers given as names and values in turn.
func Get(t testing.TB, h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	return Request(t, h, http.MethodGet, path, header...)
}

// Request sends a request without a body to the handler, with headers as for Get.
func Request(t testing.TB, h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Families decodes the metric families in the body of a response, in their order.
func Families(t testing.TB, body io.Reader, format expfmt.Format) []*dto.MetricFamily {
	t.Helper()
	d := expfmt.NewDecoder(body, format)
	var all []*dto.MetricFamily
	for {
		var family dto.MetricFamily
		err := d.Decode(&family)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &family)
	}
}
