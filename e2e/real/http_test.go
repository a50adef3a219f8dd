//go:build real

package real

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

var client = &http.Client{Timeout: 10 * time.Second}

// get returns the body of a response to a GET request. Any status other than 200 is an
// error.
func get(url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("GET %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return string(body), nil
}

// waitUntilServing waits until url has status 200.
func waitUntilServing(t *testing.T, url string) {
	t.Helper()
	testutil.Until(t, func() error {
		_, err := get(url)
		return err
	})
}
