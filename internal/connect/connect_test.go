package connect

import (
	"strings"
	"testing"
	"time"
)

// env is an environment for getenv.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestPauseGrowsToHalfASecond(t *testing.T) {
	for range 100 {
		for n, want := range map[int]time.Duration{-1: 100, 0: 100, 1: 200, 2: 400, 3: 500, 1e9: 500} {
			want *= time.Millisecond
			if got := Pause(n); got > want || got < want*4/5 {
				t.Errorf("Pause(%d) = %v, want at most %v and at least four fifths of it", n, got, want)
			}
		}
	}
}

func TestServerListsAreRead(t *testing.T) {
	for value, want := range map[string]string{
		"h":                                  "nats://h",
		"h:1":                                "nats://h:1",
		"nats://h:1, tls://[::1]:2":          "nats://h:1,tls://[::1]:2",
		"nats://user:secret@h:1":             "nats://h:1",
		"nats://us%40er:sec%2Cret@h:1,other": "nats://h:1,nats://other",
	} {
		urls, err := natsServers.parse(value)
		if err != nil || shown(urls) != want {
			t.Errorf("%q: got %s, %v; want %s", value, shown(urls), err, want)
		}
	}
	urls, err := etcdServers.parse("a,https://b:1,http://[::1]/")
	if want := "http://a:2379,https://b:1,http://[::1]:2379"; err != nil || shown(urls) != want {
		t.Errorf("got %s, %v; want %s", shown(urls), err, want)
	}
}

func TestMalformedServersAreNamedWithoutSecrets(t *testing.T) {
	for _, value := range []string{
		"", ",", "h,", "nats://", "nats://:4222", "http://h:1", "nats://h:port", "nats://h:0", "nats://h:65536", "nats://h h", "h:1:2",
		"nats://user:sec ret@h:1", "nats://user:sec,ret@h:1", "nats://user:sec%zzret@h:1", "nats://user:sec/ret@h:1",
		"ok,http://user:secret@h:1", "nats://user:secret@h:port",
	} {
		_, err := natsServers.parse(value)
		if err == nil {
			t.Errorf("%q: accepted", value)
			continue
		}
		if s := err.Error(); strings.Contains(s, "sec") || strings.Contains(s, "ret") || !strings.HasPrefix(s, "--nats-server") || strings.Contains(s, "\n") {
			t.Errorf("%q: got %s", value, s)
		}
	}
}
