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

func TestAWrongValueEndsWithCode2AndOneLineThatSaysWhatIsAllowed(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(broken, []byte("tls_server_config:\n  cert_file: nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"--poll-interval abc", `--poll-interval "abc": want seconds (2, 0.1) or a duration (100ms), at least 10ms`},
		{"--poll-interval 0.001", `--poll-interval "0.001": want seconds`},
		{"--poll-interval -1", `--poll-interval "-1": want seconds`},
		{"--poll-interval NaN", `--poll-interval "NaN": want seconds`},
		{"--poll-interval 1e300", `--poll-interval "1e300": want seconds`},
		{"--push-interval 0.5", `--push-interval "0.5": want seconds (2, 0.1) or a duration (100ms), at least 1s`},
		{"--metrics-port 70000", `--metrics-port "70000": want a number from 0 to 65535`},
		{"--port x", `--port "x": want a number from 0 to 65535`},
		{"--port 1 --metrics-port 2", `--port "1": want the same as --metrics-port (2)`},
		{"--max-workers 0", `--max-workers "0": want a number from 1`},
		{"--namespace=", `--namespace "": want a name without spaces, ">", "/" and empty parts between dots, and "*" only at its end`},
		{"--namespace a*b", `--namespace "a*b": want a name without spaces`},
		{"--namespace lab* --etcd-endpoints none --component x", `--etcd-endpoints "none": needs one --namespace`},
		{"--namespace a.*", `--namespace "a.*": want a name without spaces`},
		{"--namespace a..b", `--namespace "a..b": want a name without spaces`},
		{"--push --port 0", `--port "0": want the Pushgateway's port`},
		{"--push-grouping __x=1", `--push-grouping "__x=1": want name=value`},
		{"--component=", `--component "": want a name that is not empty`},
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
		{"--kubernetes-api http://localhost:8001", `--kubernetes-api: needs --discovery kubernetes`},
		{"--discovery kubernetes --kubernetes-api localhost:8001", `--kubernetes-api "localhost:8001": want http(s)://host[:port][/path], such as http://localhost:8001 of kubectl proxy`},
		{"--discovery kubernetes --kubernetes-namespace a/b", `--kubernetes-namespace "a/b": want a name`},
		{"--zmq-broker nonsense", `--zmq-broker "nonsense": no xpub: want xsub=tcp://host:port , xpub=tcp://host:port`},
		{"--zmq-broker xpub=ipc:///tmp/x", `--zmq-broker "xpub=ipc:///tmp/x": address "ipc:///tmp/x": want tcp://host:port`},
		{"--scrape-workers yes", `--scrape-workers "yes": want one of auto, on, off`},
		{"--scrape-interval 0.5", `--scrape-interval "0.5": want seconds (2, 0.1) or a duration (100ms), at least 1s`},
		{"--scrape-timeout 61", `--scrape-timeout "61": want seconds (2, 0.1) or a duration (100ms), from 100ms to 1m0s`},
		{"--worker-metrics-url {host}:9090", `--worker-metrics-url "{host}:9090": it begins with neither http:// nor https://; want [component=]http(s)://{host}:port/path`},
		{"--worker-metrics-url http://{pod}", `--worker-metrics-url "http://{pod}": {pod} stands for nothing: there are {host}`},
		{"--worker-metrics-url a=http://u:secret@h/", `--worker-metrics-url "***@h/": neither a user nor a fragment may be in it`},
		{"--worker-metrics-url http://a --worker-metrics-url http://b", `--worker-metrics-url "http://b": each component, and all the others, have one template`},
		{"--no-such-flag", `unknown long flag '--no-such-flag'`},
		{"stray", `unexpected stray`},
	} {
		p := start(t, "metrics", nil, strings.Fields(c.args)...)
		if code := p.Ends(); code != 2 || !strings.Contains(p.Last(), c.want) || len(p.Lines()) != 1 {
			t.Errorf("%s: exit code %d and\n%q\nwant 2 and one line with\n%s", c.args, code, p.Lines(), c.want)
		}
	}
	code, last := fails(t, "metrics", []string{"DYN_LOG=metrics=loud"})
	if code != 2 || !strings.Contains(last, `DYN_LOG "metrics=loud"`) {
		t.Errorf("wrong DYN_LOG: exit code %d and %q, want 2", code, last)
	}
}

func TestWhatCannotBeMendedByWaitingEndsWithCode1(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, c := range []struct{ args, want string }{
		{"--metrics-port " + port, "address already in use"},
		{"--push --push-url ftp://gateway", `--push-url "ftp://gateway": malformed`},
		{"--push --push-url http://a:secret@", `malformed`},
		{"--push --push-url http://a:secret@b:99999", `malformed`},
		{"--metrics-port 0 --nats-server nats://:4222", "malformed"},
		{"--metrics-port 0 --etcd-endpoints http://", "malformed"},
		{"--metrics-port 0 --discovery kubernetes", "KUBERNETES_SERVICE_HOST is not set: outside of a cluster want --kubernetes-api"},
	} {
		code, last := fails(t, "metrics", nil, append([]string{"--host", "127.0.0.1"}, strings.Fields(c.args)...)...)
		if code != 1 || !strings.Contains(last, c.want) {
			t.Errorf("%s: exit code %d and %q, want 1 and %q", c.args, code, last, c.want)
		}
		if strings.Contains(last, "secret") {
			t.Errorf("%s: a secret in %q", c.args, last)
		}
	}
}

func TestHelpAndVersionEndWithCode0(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"--help", "--version"} {
		var out, err bytes.Buffer
		cmd := exec.Command(filepath.Join(bin, "metrics"), arg)
		cmd.Stdout, cmd.Stderr = &out, &err
		if e := cmd.Run(); e != nil || out.Len() == 0 || err.Len() > 0 {
			t.Errorf("%s: %v, on standard output %q, on standard error %q; want code 0 and all on standard output", arg, e, &out, &err)
		}
	}
}
