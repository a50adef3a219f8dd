package app

import (
	"bytes"
	"crypto/x509"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func noEnv(string) string { return "" }

// alone are the flags that do something whatever the others say.
var independentFlags = strings.Fields("namespace component poll-interval metrics-port push model-name nats-server discovery zmq-broker scrape-workers " +
	"max-workers help version " +
	"endpoint") // which is an error of another kind without --component

// dependent are the others: beside what they do nothing, beside what they do something, and what
// is said of the first; of the original's that is a warning.
var dependentFlags = []struct {
	flags, nothing, something, of string
	originals                     bool
}{
	{"--push-url=http://h --push-interval=1", "", "--push", "--push", true},
	{"--push-job=a --push-grouping=a=b --push-delete-on-exit", "", "--push", "--push", false},
	{"--host=h --port=1", "--push --push-url=http://h", "--push", "--metrics-port, since --push-url names", true},
	{"--host=h --port=1", "--push --push-url=http://h", "--push --push-url=http://h --metrics-port=1", "--metrics-port, since --push-url names", true},
	{"--web.config.file=web.yml --debug.pprof", "--push", "--push --metrics-port=1", "--metrics-port, since with --push alone", false},
	{"--web.config.file=web.yml --debug.pprof", "--push", "", "--metrics-port, since with --push alone", false},
	{"--nats-tls-ca=ca.crt", "--nats-server=none", "", "--nats-server, which says", false},
	{"--nats-tls-ca=ca.crt", kubernetesAPI, kubernetesAPI + " --nats-server=h", "--nats-server, which says", false},
	{"--nats-tls-cert=client.crt --nats-tls-key=client.key", "--nats-server=none", "", "--nats-server, which says", false},
	{"--etcd-endpoints=h", "--discovery=file", "", "--discovery etcd", false},
	{"--etcd-endpoints=h", kubernetesAPI, "--discovery=etcd", "--discovery etcd", false},
	{"--kubernetes-namespace=a", "", kubernetesAPI, "--discovery kubernetes", false},
	{"--kubernetes-api=http://h", "--discovery=file", "--discovery=kubernetes", "--discovery kubernetes", false},
	{"--file-kv=a", "", "--discovery=file", "--discovery file", false},
	{"--standby", "--discovery=file", "", "etcd or Kubernetes", false},
	{"--standby", "--etcd-endpoints=none --component=a", kubernetesAPI, "etcd or Kubernetes", false},
	{"--scrape-interval=1 --scrape-timeout=1", "--scrape-workers=off", "--scrape-workers=auto", "--scrape-workers, which is off", false},
	{"--worker-metrics-url=http://h", "--scrape-workers=off --push", "--scrape-workers=off", "--scrape-workers, which is off", false},
	{"--worker-metrics-url=http://h", "--scrape-workers=off --push", "--push", "--scrape-workers, which is off", false},
	{"--worker-tls-ca=ca.crt", "--scrape-workers=off " + httpsPages, httpsPages, "--scrape-workers, which is off", false},
	{"--worker-tls-ca=ca.crt", "--worker-metrics-url=http://h", httpsPages, "--worker-metrics-url with https://", false},
	{"--worker-tls-cert=client.crt --worker-tls-key=client.key", "", httpsPages, "--worker-metrics-url with https://", false},
}

const (
	kubernetesAPI = "--discovery=kubernetes --kubernetes-api=http://h"
	httpsPages    = "--worker-metrics-url=https://{host}:9090"
)

// files makes those of the flags in the working directory.
func writeFlagFiles(t *testing.T) {
	t.Helper()
	a := testutil.NewAuthority(t)
	a.Issue("client", new(x509.Certificate))
	t.Chdir(a.Dir)
	if err := os.WriteFile("web.yml", []byte("basic_auth_users: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFlagWithoutEffectIsErrorOrWarning(t *testing.T) {
	writeFlagFiles(t)
	for _, c := range dependentFlags {
		flags := strings.Fields(c.flags)
		one := [][]string{flags}
		if !strings.Contains(c.flags, "-tls-cert") { // which are both or neither
			one = nil
			for _, flag := range flags {
				one = append(one, []string{flag})
			}
		}
		for _, given := range one {
			name, _, _ := strings.Cut(given[0], "=")
			got, wrong := parseArgs(append(given, strings.Fields(c.nothing)...)...)
			switch {
			case c.originals && (wrong != "" || len(got.warnings) != 1 || !strings.HasPrefix(got.warnings[0], name+" is ignored without "+c.of)):
				t.Errorf("%s beside %s: got %q and %q, want a warning", name, c.nothing, got.warnings, wrong)
			case !c.originals && !strings.HasPrefix(wrong, name+": needs "+c.of):
				t.Errorf("%s beside %s: got %q, want an error", name, c.nothing, wrong)
			}
			if got, wrong := parseArgs(append(given, strings.Fields(c.something)...)...); wrong != "" || len(got.warnings) != 0 {
				t.Errorf("%s beside %s: got %q and %q, want nothing", name, c.something, got.warnings, wrong)
			}
		}
	}
}

// TestFlagsAreAllInRequirementTables, or to be nothing without another.
func TestFlagsAreAllInRequirementTables(t *testing.T) {
	var help bytes.Buffer
	if _, _, err := parse([]string{"--help"}, noEnv, &help); err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`(?m)^ +(?:-\w, )?--(?:\[no-\])?([a-z.-]+)`)
	var all []string
	for _, m := range flag.FindAllStringSubmatch(help.String(), -1) {
		all = append(all, m[1])
	}
	known := slices.Clone(independentFlags)
	for _, c := range dependentFlags {
		for _, f := range regexp.MustCompile(`--([a-z.-]+)`).FindAllStringSubmatch(c.flags, -1) {
			known = append(known, f[1])
		}
	}
	for _, f := range all {
		if !slices.Contains(known, f) {
			t.Errorf("is --%s of any use without the others?", f)
		}
	}
	for _, f := range known {
		if !slices.Contains(all, f) {
			t.Errorf("there is no --%s", f)
		}
	}
	if len(all) < 40 {
		t.Errorf("found %d flags", len(all))
	}
}

// TestFlagsIgnoreUnusedEnvironment: other programs read it, too.
func TestFlagsIgnoreUnusedEnvironment(t *testing.T) {
	env := map[string]string{
		"NATS_SERVER": "none", "NATS_TLS_CA_CERT_PATH": "nowhere", "NATS_TLS_CLIENT_CERT_PATH": "nowhere", "NATS_TLS_INSECURE": "1",
		"NATS_AUTH_CREDENTIALS_FILE": "nowhere", "NATS_AUTH_USERNAME": "u", "DYN_FILE_KV": "nowhere",
		"ETCD_ENDPOINTS": "ftp://", "ETCD_AUTH_CA": "nowhere", "ETCD_AUTH_USERNAME": "u", "POD_NAMESPACE": "a", "POD_NAME": "b",
		"DYN_DISCOVERY_BACKEND": "file", "DYN_KUBE_DISCOVERY_MODE": "no", "DYN_LOG": "=", "DYN_LOGGING_CONFIG_PATH": "nowhere",
	}
	c, _, err := parse(nil, func(name string) string { return env[name] }, io.Discard)
	if err != nil || c.warnings != nil {
		t.Errorf("got %v and %q", err, c.warnings)
	}
}

func TestFlagsOverrideNATSTLSEnvironment(t *testing.T) {
	writeFlagFiles(t)
	env := map[string]string{
		"NATS_TLS_CA_CERT_PATH": "ca.crt", "NATS_TLS_CLIENT_CERT_PATH": "client.crt", "NATS_TLS_CLIENT_KEY_PATH": "client.key",
	}
	c, _, err := parse(nil, func(name string) string { return env[name] }, io.Discard)
	if got := c.natsTLS; err != nil || got.CA != "ca.crt" || got.Cert != "client.crt" || got.Key != "client.key" {
		t.Errorf("got %+v, %v", got, err)
	}
	env["NATS_TLS_CA_CERT_PATH"] = "nowhere"
	c, _, err = parse([]string{"--nats-tls-ca", "client.crt"}, func(name string) string { return env[name] }, io.Discard)
	if got := c.natsTLS; err != nil || got.CA != "client.crt" || got.Cert != "client.crt" || got.Key != "client.key" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, name := range []string{"NATS_TLS_CA_CERT_PATH", "NATS_TLS_CLIENT_CERT_PATH", "NATS_TLS_CLIENT_KEY_PATH"} {
		_, _, err := parse(nil, func(n string) string { return map[string]string{name: "client.key"}[n] }, io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), "--nats-tls-") {
			t.Errorf("%s alone, or not a certificate: got %v", name, err)
		}
	}
}

// TestFlagValuesAreBounded: at a bound, and just beyond.
func TestFlagValuesAreBounded(t *testing.T) {
	for _, c := range []struct {
		flag, beside       string
		least, below       string
		most, above, wants string
	}{
		{"poll-interval", "", "10ms", "9.9ms", "1h", "3600.1", "from 10ms to 1h0m0s"},
		{"push-interval", "--push", "1", "999ms", "3600", "1h1s", "from 1s to 1h0m0s"},
		{"scrape-interval", "", "1", "0.9", "60m", "1000h", "from 1s to 1h0m0s"},
		{"scrape-timeout", "", "100ms", "99ms", "1m", "61", "from 100ms to 1m0s"},
		{"max-workers", "", "1", "0", "100000000", "100000001", "a number from 1 to 100000000"},
		{"metrics-port", "", "0", "-1", "65535", "65536", "a number from 0 to 65535"},
		{"port", "", "0", "-1", "65535", "65536", "a number from 0 to 65535"},
	} {
		for value, fine := range map[string]bool{c.least: true, c.below: false, c.most: true, c.above: false} {
			_, wrong := parseArgs(append(strings.Fields(c.beside), "--"+c.flag, value)...)
			if fine && wrong != "" || !fine && (!strings.HasPrefix(wrong, "--"+c.flag+` "`+value+`": want `) || !strings.HasSuffix(wrong, c.wants)) {
				t.Errorf("--%s %s: got %q", c.flag, value, wrong)
			}
		}
	}
	if c, wrong := parseArgs("--push-interval", "1h", "--push"); wrong != "" || c.pushgateway.Interval != time.Hour {
		t.Errorf("got %v, %s", c.pushgateway.Interval, wrong)
	}
}
