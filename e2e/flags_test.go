package e2e

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlagsRejectWrongValues(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(broken, []byte("tls_server_config:\n  cert_file: nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"--poll-interval abc", `--poll-interval "abc": want seconds (2, 0.1) or a duration (100ms), from 10ms to 1h0m0s`},
		{"--poll-interval 0.001", `--poll-interval "0.001": want seconds`},
		{"--poll-interval -1", `--poll-interval "-1": want seconds`},
		{"--poll-interval NaN", `--poll-interval "NaN": want seconds`},
		{"--poll-interval 1e300", `--poll-interval "1e300": want seconds`},
		{"--push-interval 0.5", `--push-interval "0.5": want seconds (2, 0.1) or a duration (100ms), from 1s to 1h0m0s`},
		{"--metrics-port 70000", `--metrics-port "70000": want a number from 0 to 65535`},
		{"--port x", `--port "x": want a number from 0 to 65535`},
		{"--port 1 --metrics-port 2", `--port "1": want the same as --metrics-port (2)`},
		{"--max-workers 0", `--max-workers "0": want a number from 1`},
		{"--namespace=", `--namespace "": want a name without spaces, ">", "/" and empty parts between dots, and "*" only at its end`},
		{"--namespace a*b", `--namespace "a*b": want a name without spaces`},
		{"--namespace lab* --etcd-endpoints none --component x", `--etcd-endpoints "none": needs a single --namespace`},
		{"--namespace a.*", `--namespace "a.*": want a name without spaces`},
		{"--namespace a..b", `--namespace "a..b": want a name without spaces`},
		{"--push --port 0", `--port "0": want the Pushgateway's port`},
		{"--poll-interval 1000h", `--poll-interval "1000h": want seconds`},
		{"--push-grouping __x=1", `--push-grouping "__x=1": want name=value`},
		{"--component=", `--component "": want a name that is not empty`},
		{"--component back*", `--component "back*": want a name that is not empty, without spaces, "/", "*" and ">"; without the flag all are watched`},
		{"--component a --endpoint gen/erate", `--endpoint "gen/erate": want a name that is not empty, without spaces, "/", "*" and ">"`},
		{"--host localhost:9091", `--host "localhost:9091": want an address or the name of a host, without scheme and port: --port sets that`},
		{"--host http://x", `--host "http://x": want an address or the name of a host`},
		{"--namespace dyn://dynamo", `--namespace "dyn://dynamo": want a name without spaces`},
		{"--component a --endpoint=", `--endpoint "": want a name that is not empty`},
		{"--endpoint generate", `--endpoint "generate": needs --component`},
		{"--push-grouping novalue", `--push-grouping "novalue": want name=value`},
		{"--push-grouping worker_id=1", `--push-grouping "worker_id=1": want a label that no metric has`},
		{"--etcd-endpoints none", `--etcd-endpoints "none": needs --component`},
		{"--web.config.file " + broken, `--web.config.file "` + broken + `": want an exporter-toolkit configuration`},
		{"--component \xff", `--component "\xff": want UTF-8`},
		{"--model-name \xff", `--model-name "\xff": want UTF-8`},
		{"--nats-server none --etcd-endpoints none --component x", `--nats-server "none": needs a registry`},
		{"--discovery file --file-kv=", `--file-kv "": want a path that is not empty`},
		{"--discovery mem", `--discovery "mem": want one of etcd, file, kubernetes`},
		{"--discovery kubernetes --kubernetes-namespace *", `--kubernetes-namespace "*": want a name`},
		{"--kubernetes-api http://localhost:8001", `--kubernetes-api: needs --discovery kubernetes`},
		{"--discovery kubernetes --kubernetes-api localhost:8001", `--kubernetes-api "localhost:8001": want http(s)://host[:port][/path], such as http://localhost:8001 of kubectl proxy`},
		{"--discovery kubernetes --kubernetes-namespace a/b", `--kubernetes-namespace "a/b": want a name`},
		{"--zmq-broker nonsense", `--zmq-broker "nonsense": no xpub: want xsub=tcp://host:port , xpub=tcp://host:port`},
		{"--zmq-broker xpub=ipc:///tmp/x", `--zmq-broker "xpub=ipc:///tmp/x": address "ipc:///tmp/x": want tcp://host:port`},
		{"--scrape-workers yes", `--scrape-workers "yes": want one of auto, on, off`},
		{"--scrape-interval 0.5", `--scrape-interval "0.5": want seconds (2, 0.1) or a duration (100ms), from 1s to 1h0m0s`},
		{"--scrape-timeout 61", `--scrape-timeout "61": want seconds (2, 0.1) or a duration (100ms), from 100ms to 1m0s`},
		{"--worker-metrics-url {host}:9090", `--worker-metrics-url "{host}:9090": it begins with neither http:// nor https://; want [component=]http(s)://{host}:port/path`},
		{"--worker-metrics-url http://{pod}", `--worker-metrics-url "http://{pod}": {pod} is not a placeholder: want one of {host}`},
		{"--worker-metrics-url a=http://u:secret@h/", `--worker-metrics-url "***@h/": neither a user nor a fragment may be in it`},
		{"--worker-metrics-url http://a --worker-metrics-url http://b", `--worker-metrics-url "http://b": there may be one template for each component, and one for all others`},
		{"--no-such-flag", `unknown long flag '--no-such-flag'`},
		{"--endpont generate", `unknown long flag '--endpont': did you mean --endpoint?`},
		{"stray", `unexpected stray`},
		{"dashbaords", `unexpected dashbaords: did you mean dashboards?`},
		{"--push-job a", `--push-job: needs --push`},
		{"--push --push-url ftp://gateway", `--push-url "ftp://gateway": malformed`},
		{"--push --push-url http://a:secret@", `malformed`},
		{"--push --push-url http://a:secret@b:99999", `malformed`},
		{"--nats-server nats://:4222", "malformed"},
		{"--nats-server nats://u:secret@h:x", "malformed"},
		{"--etcd-endpoints http://", "malformed"},
		{"--etcd-endpoints http://u:secret@h", "want no user in it"},
		{"--discovery kubernetes", "KUBERNETES_SERVICE_HOST is not set: outside of a cluster want --kubernetes-api"},
		{"NATS_AUTH_CREDENTIALS_FILE=/nowhere", "NATS_AUTH_CREDENTIALS_FILE: open /nowhere"},
		{"NATS_AUTH_NKEY=secret", "NATS_AUTH_NKEY: want the seed"},
		{"NATS_TLS_CA_CERT_PATH=/nowhere", "--nats-tls-ca: open /nowhere"},
		{"ETCD_AUTH_USERNAME=u", "ETCD_AUTH_USERNAME is set, but not ETCD_AUTH_PASSWORD"},
		{"ETCD_AUTH_CA=/nowhere", "ETCD_AUTH_CA: open /nowhere"},
		{"DYN_DISCOVERY_BACKEND=mem", `--discovery "mem": want one of`},
		{"DYN_KUBE_DISCOVERY_MODE=no --discovery kubernetes --kubernetes-api http://h", `DYN_KUBE_DISCOVERY_MODE "no": want pod or container`},
	} {
		var env []string // set by what precedes the first flag
		args := strings.Fields(c.args)
		for len(args) > 0 && args[0][0] >= 'A' && args[0][0] <= 'Z' {
			env, args = append(env, args[0]), args[1:]
		}
		p := start(t, "metrics", env, args...)
		if code := p.Wait(); code != 2 || !strings.Contains(p.LastLine(), c.want) || len(p.Lines()) != 1 || strings.Contains(p.LastLine(), "secret") {
			t.Errorf("%s: exit code %d and\n%q\nwant 2 and one line with\n%s", c.args, code, p.Lines(), c.want)
		}
	}
}

// TestFlagsOfTheOriginalWithoutEffectAreWarnings checks that scripts for the original still
// start, whatever DYN_LOG is, because that variable is shared by all Dynamo programs.
func TestFlagsOfTheOriginalWithoutEffectAreWarnings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "logging.toml"), []byte("log_level = \"warn\"\n[log_filters]\nnats = \"off\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, "metrics",
		[]string{"DYN_LOG=metrics=loud,etcd=off", "DYN_LOGGING_CONFIG_PATH=" + filepath.Join(dir, "logging.toml"), "NATS_SERVER=127.0.0.1:1", "ETCD_ENDPOINTS=127.0.0.1:1"},
		"--host", "127.0.0.1", "--metrics-port", "0", "--push-url", "http://localhost:9091", "--push-interval", "2")
	m.WaitForLine("--push-interval is ignored without --push")
	m.Terminate()
	if lines := m.Lines(); len(lines) != 3 {
		t.Errorf("want three warnings, and no line of level info:\n%s", strings.Join(lines, "\n"))
	}
	for _, want := range []string{`DYN_LOG "metrics=loud" is ignored: level "loud": want one of`, "--push-url is ignored without --push", "--push-interval is ignored without --push"} {
		if logged := m.LinesWith(" WARN metrics: " + want); len(logged) != 1 {
			t.Errorf("want this once, %s:\n%s", want, strings.Join(m.Lines(), "\n"))
		}
	}
}

func TestStartFailsOnPermanentErrors(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	code, last := runToFailure(t, "metrics", nil, "--host", "127.0.0.1", "--metrics-port", port)
	if code != 1 || !strings.Contains(last, "address already in use") {
		t.Errorf("exit code %d and %q, want 1", code, last)
	}
}

func TestFlagsHelpAndVersionExitWith0(t *testing.T) {
	t.Parallel()
	for args, same := range map[string]string{
		"--help": "--help", "-h": "--help", "help": "--help", "--version": "--version", "version": "--version",
		"help rules": "rules --help", "rules -h": "rules --help", "rules help": "rules --help", "help runbook": "runbook --help",
		"help dashboards": "dashboards --help", "dashboards version": "dashboards --version",
	} {
		var out, err bytes.Buffer
		cmd := exec.Command(filepath.Join(bin, "metrics"), strings.Fields(args)...)
		cmd.Stdout, cmd.Stderr = &out, &err
		if e := cmd.Run(); e != nil || out.String() != output(t, strings.Fields(same)...) || err.Len() > 0 {
			t.Errorf("%s: %v, on standard output %q, on standard error %q; want code 0 and what %s prints", args, e, &out, &err, same)
		}
	}
}
