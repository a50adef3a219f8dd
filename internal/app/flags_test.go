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

// independentFlags always have an effect.
var independentFlags = strings.Fields("namespace component poll-interval metrics-port push model-name nats-server discovery zmq-broker scrape-workers " +
	"max-workers help version " +
	"endpoint") // without --component this is another error

// dependentFlags are the other flags: the flags beside which they have no effect, the flags
// beside which they have one, and the end of the error. For flags of the original it is a
// warning.
var dependentFlags = []struct {
	flags, without, with, want string
	original                   bool
}{
	{"--push-url=http://h --push-interval=1", "", "--push", "--push", true},
	{"--push-job=a --push-grouping=a=b --push-delete-on-exit", "", "--push", "--push", false},
	{"--host=h --port=1", "--push --push-url=http://h", "--push", "--metrics-port: --push-url names", true},
	{"--host=h --port=1", "--push --push-url=http://h", "--push --push-url=http://h --metrics-port=1", "--metrics-port: --push-url names", true},
	{"--web.config.file=web.yml --debug.pprof", "--push", "--push --metrics-port=1", "--metrics-port: with --push alone", false},
	{"--web.config.file=web.yml --debug.pprof", "--push", "", "--metrics-port: with --push alone", false},
	{"--nats-tls-ca=ca.crt", "--nats-server=none", "", "--nats-server, which is none", false},
	{"--nats-tls-ca=ca.crt", kubernetesAPI, kubernetesAPI + " --nats-server=h", "--nats-server, which is none", false},
	{"--nats-tls-cert=client.crt --nats-tls-key=client.key", "--nats-server=none", "", "--nats-server, which is none", false},
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
	{"--worker-tls-ca=ca.crt", "--scrape-workers=off " + httpsMetrics, httpsMetrics, "--scrape-workers, which is off", false},
	{"--worker-tls-ca=ca.crt", "--worker-metrics-url=http://h", httpsMetrics, "--worker-metrics-url with https://", false},
	{"--worker-tls-cert=client.crt --worker-tls-key=client.key", "", httpsMetrics, "--worker-metrics-url with https://", false},
}

const (
	kubernetesAPI = "--discovery=kubernetes --kubernetes-api=http://h"
	httpsMetrics  = "--worker-metrics-url=https://{host}:9090"
)

// writeFlagFiles writes the files that the flags name to a new working directory.
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
		if !strings.Contains(c.flags, "-tls-cert") { // these two need each other
			one = nil
			for _, flag := range flags {
				one = append(one, []string{flag})
			}
		}
		for _, given := range one {
			name, _, _ := strings.Cut(given[0], "=")
			got, errText := parseArgs(append(given, strings.Fields(c.without)...)...)
			switch {
			case c.original && (errText != "" || len(got.Warnings) != 1 || !strings.HasPrefix(got.Warnings[0], name+" is ignored without "+c.want)):
				t.Errorf("%s beside %s: got %q and %q, want a warning", name, c.without, got.Warnings, errText)
			case !c.original && !strings.HasPrefix(errText, name+": needs "+c.want):
				t.Errorf("%s beside %s: got %q, want an error", name, c.without, errText)
			}
			if got, errText := parseArgs(append(given, strings.Fields(c.with)...)...); errText != "" || len(got.Warnings) != 0 {
				t.Errorf("%s beside %s: got %q and %q, want nothing", name, c.with, got.Warnings, errText)
			}
		}
	}
}

// TestFlagsAreAllInRequirementTables finds flags that are in neither table.
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
			t.Errorf("--%s is in neither table: does it have an effect without other flags?", f)
		}
	}
	for _, f := range known {
		if !slices.Contains(all, f) {
			t.Errorf("there is no --%s", f)
		}
	}
	if len(all) < 35 {
		t.Errorf("found %d flags", len(all))
	}
}

// TestFlagsIgnoreUnusedEnvironment: other Dynamo programs read the same variables.
func TestFlagsIgnoreUnusedEnvironment(t *testing.T) {
	env := map[string]string{
		"NATS_SERVER": "none", "NATS_TLS_CA_CERT_PATH": "nowhere", "NATS_TLS_CLIENT_CERT_PATH": "nowhere", "NATS_TLS_INSECURE": "1",
		"NATS_AUTH_CREDENTIALS_FILE": "nowhere", "NATS_AUTH_USERNAME": "u", "DYN_FILE_KV": "nowhere",
		"ETCD_ENDPOINTS": "ftp://", "ETCD_AUTH_CA": "nowhere", "ETCD_AUTH_USERNAME": "u", "POD_NAMESPACE": "a", "POD_NAME": "b",
		"DYN_DISCOVERY_BACKEND": "file", "DYN_KUBE_DISCOVERY_MODE": "no", "DYN_LOG": "=", "DYN_LOGGING_CONFIG_PATH": "nowhere",
	}
	o, _, err := parse(nil, func(name string) string { return env[name] }, io.Discard)
	if err != nil || o.Warnings != nil {
		t.Errorf("got %v and %q", err, o.Warnings)
	}
}

func TestFlagsOverrideNATSTLSEnvironment(t *testing.T) {
	writeFlagFiles(t)
	env := map[string]string{
		"NATS_TLS_CA_CERT_PATH": "ca.crt", "NATS_TLS_CLIENT_CERT_PATH": "client.crt", "NATS_TLS_CLIENT_KEY_PATH": "client.key",
	}
	o, _, err := parse(nil, func(name string) string { return env[name] }, io.Discard)
	if got := o.NATSTLS; err != nil || got.CA != "ca.crt" || got.Cert != "client.crt" || got.Key != "client.key" {
		t.Errorf("got %+v, %v", got, err)
	}
	env["NATS_TLS_CA_CERT_PATH"] = "nowhere"
	o, _, err = parse([]string{"--nats-tls-ca", "client.crt"}, func(name string) string { return env[name] }, io.Discard)
	if got := o.NATSTLS; err != nil || got.CA != "client.crt" || got.Cert != "client.crt" || got.Key != "client.key" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, name := range []string{"NATS_TLS_CA_CERT_PATH", "NATS_TLS_CLIENT_CERT_PATH", "NATS_TLS_CLIENT_KEY_PATH"} {
		_, _, err := parse(nil, func(n string) string { return map[string]string{name: "client.key"}[n] }, io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), "--nats-tls-") {
			t.Errorf("%s alone, or not a certificate: got %v", name, err)
		}
	}
}

// TestFlagValuesAreBounded tries every bound, and a value just beyond it.
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
			_, errText := parseArgs(append(strings.Fields(c.beside), "--"+c.flag, value)...)
			if fine && errText != "" || !fine && (!strings.HasPrefix(errText, "--"+c.flag+` "`+value+`": want `) || !strings.HasSuffix(errText, c.wants)) {
				t.Errorf("--%s %s: got %q", c.flag, value, errText)
			}
		}
	}
	if o, errText := parseArgs("--push-interval", "1h", "--push"); errText != "" || o.Pushgateway.Interval != time.Hour {
		t.Errorf("got %v, %s", o.Pushgateway.Interval, errText)
	}
}
