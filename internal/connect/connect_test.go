package connect

import (
	"strings"
	"testing"
)

// env returns an environment for getenv, from pairs of name and value.
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

func TestServerListParse(t *testing.T) {
	for value, want := range map[string]string{
		"h":                                  "nats://h",
		"h:1":                                "nats://h:1",
		"nats://h:1, tls://[::1]:2":          "nats://h:1,tls://[::1]:2",
		"nats://user:secret@h:1":             "nats://h:1",
		"nats://us%40er:sec%2Cret@h:1,other": "nats://h:1,nats://other",
	} {
		urls, err := natsServers.parse(value)
		if err != nil || redactedURLs(urls) != want {
			t.Errorf("%q: got %s, %v; want %s", value, redactedURLs(urls), err, want)
		}
	}
	urls, err := etcdServers.parse("a,https://b:1,http://[::1]/")
	if want := "http://a:2379,https://b:1,http://[::1]:2379"; err != nil || redactedURLs(urls) != want {
		t.Errorf("got %s, %v; want %s", redactedURLs(urls), err, want)
	}
}

func TestServerListErrorsHideSecrets(t *testing.T) {
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

// TestCheckFindsErrorsWithoutServers covers addresses, files and variables.
func TestCheckFindsErrorsWithoutServers(t *testing.T) {
	for name, c := range map[string]struct {
		nats  string
		files NATSTLS
		etcd  string
		env   func(string) string
		want  string
	}{
		"nothing":                  {"h", NATSTLS{}, "h", env(), ""},
		"no servers":               {"", NATSTLS{CA: "nowhere"}, "", env(natsCreds, "nowhere", etcdCA, "nowhere", natsNkey, "x"), ""},
		"a scheme":                 {"http://h", NATSTLS{}, "", env(), "--nats-server "},
		"websockets and others":    {"ws://h,nats://h", NATSTLS{}, "", env(), "--nats-server "},
		"a file for TLS":           {"h", NATSTLS{CA: "nowhere"}, "", env(), "--nats-tls-ca: open nowhere"},
		"half a pair":              {"h", NATSTLS{Cert: "c"}, "", env(), "--nats-tls-cert "},
		"half of NATS's variables": {"h", NATSTLS{}, "", env(natsUser, "u"), natsUser + " is set, but not " + natsPass},
		"NATS's credentials":       {"h", NATSTLS{}, "", env(natsCreds, "nowhere"), natsCreds + ": open nowhere"},
		"an nkey":                  {"h", NATSTLS{}, "", env(natsNkey, "x"), natsNkey + ": want the seed"},
		"etcd's scheme":            {"", NATSTLS{}, "nats://h", env(), "--etcd-endpoints "},
		"etcd's path":              {"", NATSTLS{}, "http://h/path", env(), "--etcd-endpoints "},
		"half of etcd's variables": {"", NATSTLS{}, "h", env(etcdUser, "u"), etcdUser + " is set, but not " + etcdPass},
		"etcd's authority":         {"", NATSTLS{}, "https://h", env(etcdCA, "nowhere"), etcdCA + ": open nowhere"},
		"half of etcd's pair":      {"", NATSTLS{}, "https://h", env(etcdCert, "c"), etcdCert + " is set, but not " + etcdKey},
	} {
		got := ""
		if err := Check(c.nats, c.files, c.etcd, c.env); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
