package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/internal/testutil"
)

// withPassword is a web configuration that requires the user u and the password "secret".
const withPassword = "basic_auth_users:\n  u: $2a$04$BWSdB/BnnmmxHeExxmRRi.cPwBEWp.R.l7p4.VPdlMKQNnuH/0HzW\n"

// getWithPassword makes one request with a password, or without one if it is empty. The
// status is 0 if there is no response.
func getWithPassword(t *testing.T, password, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		r.SetBasicAuth("u", password)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func TestWebConfigThatBreaksKeepsThePassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "web.yml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write(withPassword)
	m := serve(t, nil, "--discovery", "file", "--file-kv", t.TempDir(), "--nats-server", "none", "--web.config.file", file)
	until := func(what string, check func() bool) {
		testutil.Until(t, func() error {
			if !check() {
				return fmt.Errorf("not yet: %s", what)
			}
			return nil
		})
	}
	statusWith := func(password string) int { status, _ := getWithPassword(t, password, m.url+"/metrics"); return status }
	snapshotText := func() string { _, body := getWithPassword(t, "secret", m.url+"/api/v1/fleet"); return body }
	until("the program serves", func() bool { return statusWith("secret") == 200 })

	for i, text := range []string{"", "# to be filled\n", "basic_auth_users:\n", "basic_auth_us"} {
		write(text)
		until(fmt.Sprintf("the snapshot reports what is wrong with %q", text), func() bool {
			if got := statusWith(""); got != 401 {
				t.Fatalf("%q: status %d without a password", text, got)
			}
			return strings.Contains(snapshotText(), `"kind":"web_config"`)
		})
		write(withPassword)
		until("the snapshot reports no error any more", func() bool { return !strings.Contains(snapshotText(), `"kind":"web_config"`) })
		if got := len(m.LinesWith("The web configuration cannot be used; the previous one")); got != i+1 {
			t.Errorf("%q: logged %d times that it cannot be used, want %d", text, got, i+1)
		}
	}

	// While the file is repeatedly overwritten in place, readers see it whole, empty, and
	// in parts.
	var writer sync.WaitGroup
	over := make(chan struct{})
	writer.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				write(withPassword)
			}
		}
	})
	for range 1000 {
		if got := statusWith(""); got != 401 {
			t.Fatalf("status %d without a password while the file is written", got)
		}
	}
	close(over)
	writer.Wait()
	if got := statusWith("secret"); got != 200 {
		t.Errorf("status %d with the password", got)
	}

	// A new password takes effect, and open streams end.
	stream := make(chan int)
	go func() { status, _ := getWithPassword(t, "secret", m.url+"/events"); stream <- status }()
	until("a stream is open", func() bool {
		_, body := getWithPassword(t, "secret", m.url+"/metrics")
		return strings.Contains(body, "\ndynamo_metrics_page_streams 1\n")
	})
	write(strings.Replace(withPassword, "BWSdB/BnnmmxHeExxmRRi.cPwBEWp.R.l7p4.VPdlMKQNnuH/0HzW", "BWSdB/BnnmmxHeExxmRRi.cPwBEWp.R.l7p4.VPdlMKQNnuH/0HzX", 1))
	if got := <-stream; got != 200 {
		t.Errorf("status %d of a stream", got)
	}
	until("the old password is refused", func() bool { return statusWith("secret") == 401 })
	if logged := m.LinesWith("secret"); len(logged) > 0 {
		t.Errorf("the log shows a password: %q", logged)
	}
}
