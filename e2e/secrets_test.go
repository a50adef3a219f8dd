package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// secret is contained in every secret of these tests, whether it is the right one or not.
const secret = "s3cret"

// checkNoSecret fails the test if any of the texts contains a secret.
func checkNoSecret(t *testing.T, what string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if strings.Contains(line, secret) {
				t.Errorf("%s: a secret in %q", what, line)
			}
		}
	}
}

// startNATS starts a NATS server with the options that tune sets.
func startNATS(t *testing.T, tune func(*natsserver.Options)) *devstack.NATSServer {
	t.Helper()
	s, err := devstack.NATS(devstack.NATSConfig{Dir: t.TempDir(), Tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// startProtectedGateway starts a Pushgateway that knows one user, and counts accepted
// pushes.
func startProtectedGateway(t *testing.T, password string) (address string, accepted *atomic.Int64) {
	t.Helper()
	accepted = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if _, got, _ := r.BasicAuth(); got != password {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		accepted.Add(1)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), accepted
}

// secretServers are an etcd and a Pushgateway that require passwords.
type secretServers struct {
	registry *devstack.EtcdServer
	gateway  string        // host:port
	accepted *atomic.Int64 // pushes
}

func startSecretServers(t *testing.T) *secretServers {
	t.Helper()
	s := new(secretServers)
	var root *clientv3.Client
	s.registry, root = startProtectedEtcd(t)
	addUser(t, root, "metrics", "s3cret-etcd", documentedGrants(t))
	s.gateway, s.accepted = startProtectedGateway(t, "s3cret-push")
	return s
}

// env returns the variables for etcd and for the most verbose log.
func (s *secretServers) env() []string {
	return append(etcdEnv(s.registry, "metrics", "s3cret-etcd"), "DYN_LOG=trace")
}

// push returns the flags for pushing with a password.
func (s *secretServers) push(password string) []string {
	return []string{"--push", "--push-interval", "1", "--poll-interval", "0.1", "--push-url", "http://push:" + password + "@" + s.gateway}
}

// natsServer returns the variable with the address of a NATS server, with user info if any.
func natsServer(s *devstack.NATSServer, userInfo string) string {
	if userInfo == "" {
		return "NATS_SERVER=" + s.URL()
	}
	return "NATS_SERVER=" + strings.Replace(s.URL(), "nats://", "nats://"+userInfo+"@", 1)
}

func requirePassword(o *natsserver.Options) { o.Username, o.Password = "metrics", "s3cret-nats" }

func requireToken(o *natsserver.Options) { o.Authorization = "s3cret-token" }

// TestSecretsAreNeverShown gives the program secrets in every way that it accepts, and
// looks for them in everything that it logs, at the most verbose level, and serves.
func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	s := startSecretServers(t)
	for name, c := range map[string]struct {
		tune           func(*natsserver.Options)
		userInfo       string // in NATS's address, if any
		right, refused []string
	}{
		"password in the address": {requirePassword, "metrics:s3cret-nats", nil, nil},
		"password":                {requirePassword, "", []string{"NATS_AUTH_USERNAME=metrics", "NATS_AUTH_PASSWORD=s3cret-nats"}, []string{"NATS_AUTH_USERNAME=metrics", "NATS_AUTH_PASSWORD=s3cret-wrong"}},
		"token in the address":    {requireToken, "s3cret-token", nil, nil},
		"token":                   {requireToken, "", []string{"NATS_AUTH_TOKEN=s3cret-token"}, []string{"NATS_AUTH_TOKEN=s3cret-wrong"}},
	} {
		t.Run(name, func(t *testing.T) {
			bus := startNATS(t, c.tune)
			for _, format := range []string{"DYN_LOGGING_JSONL=0", "DYN_LOGGING_JSONL=1"} {
				before := s.accepted.Load()
				m := serve(t, slices.Concat(s.env(), c.right, []string{natsServer(bus, c.userInfo), format}), s.push("s3cret-push")...)
				m.waitUntilReady()
				m.WaitForLine("Connected to NATS")
				testutil.Until(t, func() error {
					if s.accepted.Load() == before {
						return fmt.Errorf("the gateway has accepted nothing")
					}
					return nil
				})
				for _, path := range []string{"/", "/metrics", "/-/ready", "/api/v1/fleet"} {
					_, body := get(m.url + path)
					checkNoSecret(t, path, body)
				}
				m.Terminate()
				checkNoSecret(t, "log", m.Lines()...)
			}
			wrong := strings.NewReplacer("s3cret-nats", "s3cret-wrong", "s3cret-token", "s3cret-wrong").Replace(c.userInfo)
			p := start(t, "metrics", slices.Concat(s.env(), c.refused, []string{natsServer(bus, wrong)}), append(s.push("s3cret-push"), "--host", "127.0.0.1", "--metrics-port", "0")...)
			if code := p.Wait(); code != 1 || !strings.Contains(p.LastLine(), "Authorization Violation") {
				t.Errorf("refused: exit code %d and %q", code, p.LastLine())
			}
			checkNoSecret(t, "refused", p.Lines()...)
		})
	}
}

func TestSecretsAreNotShownWhenNATSIsLost(t *testing.T) {
	t.Parallel()
	s, bus := startSecretServers(t), startNATS(t, requirePassword)
	m := serve(t, append(s.env(), natsServer(bus, "metrics:s3cret-nats")), s.push("s3cret-wrong")...)
	m.WaitForLine("Failed to push")
	m.WaitForLine("Connected to NATS")
	config := bus.Config()
	bus.Close()
	m.WaitForLine("Lost the connection to NATS")
	config.Tune = requireToken
	locked := devstacktest.StartWithRetry(t, func() (*devstack.NATSServer, error) { return devstack.NATS(config) })
	t.Cleanup(locked.Close)
	m.WaitForLine("NATS reports a fault")
	m.Terminate()
	checkNoSecret(t, "log", m.Lines()...)
}

func TestSecretsSeedOfAnNKeyIsNotShown(t *testing.T) {
	t.Parallel()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.PublicKey()
	seed, _ := key.Seed()
	bus := startNATS(t, func(o *natsserver.Options) { o.Nkeys = []*natsserver.NkeyUser{{Nkey: public}} })
	m := serve(t, append(startSecretServers(t).env(), natsServer(bus, ""), "NATS_AUTH_NKEY="+string(seed)))
	m.waitUntilReady()
	m.Terminate()
	if logged := m.LinesWith(string(seed)); len(logged) > 0 {
		t.Errorf("the seed in %q", logged)
	}
}

func TestSecretsAreNotShownWhenEtcdRefuses(t *testing.T) {
	t.Parallel()
	s, bus := startSecretServers(t), startNATS(t, nil)
	env := append(etcdEnv(s.registry, "metrics", "s3cret-wrong"), natsServer(bus, ""), "DYN_LOG=trace")
	p := start(t, "metrics", env, "--host", "127.0.0.1", "--metrics-port", "0")
	if code := p.Wait(); code != 1 || !strings.Contains(p.LastLine(), "ETCD_AUTH_PASSWORD") {
		t.Errorf("exit code %d and %q", code, p.LastLine())
	}
	checkNoSecret(t, "log", p.Lines()...)
}

func TestSecretsAreNotShownWhileServersAreDown(t *testing.T) {
	t.Parallel()
	m := serve(t, []string{
		"NATS_SERVER=nats://metrics:s3cret@127.0.0.1:1,nats://s3cret@127.0.0.1:2", "ETCD_ENDPOINTS=127.0.0.1:1",
		"ETCD_AUTH_USERNAME=metrics", "ETCD_AUTH_PASSWORD=s3cret-etcd", "DYN_LOG=trace",
	}, "--push", "--push-url", "http://push:s3cret-push@127.0.0.1:1")
	m.WaitForLine("NATS is not connected")
	m.WaitForLine("etcd is not connected")
	_, body := get(m.url + "/")
	checkNoSecret(t, "/", body)
	m.Terminate()
	checkNoSecret(t, "log", m.Lines()...)
}

func TestSecretsAreInNoCommandLineError(t *testing.T) {
	t.Parallel()
	web := filepath.Join(t.TempDir(), "web.yml")
	for _, c := range []struct{ program, args, web, want string }{
		{"metrics", "--nats-server nats://u:s3cret@h:port", "", "malformed"},
		{"metrics", "--nats-server nats://u:s3cret,x@h:4222", "", "malformed"},
		{"metrics", "--nats-server nats://u:s3cret\xff@h:4222", "", "want UTF-8"},
		{"metrics", "--nats-server nats://u:my s3cret@h:4222", "", "unexpected ***@h:4222"},
		{"metrics", "--nats-server wss://s3cret@h,nats://s3cret@h", "", "websocket servers only"},
		{"metrics", "--etcd-endpoints http://u:s3cret@h", "", "ETCD_AUTH_PASSWORD"},
		{"metrics", "--etcd-endpoints http://u:s3cret\xff@h", "", "want UTF-8"},
		{"metrics", "--push --push-url http://u:s3cret@h:port", "", "malformed"},
		{"metrics", "--push --push-url http://u:s3cret\xff@h", "", "want UTF-8"},
		{"metrics", "--push --push-url u:s3cret@h?x", "", "malformed"},
		{"metrics", "--web.config.file " + web, "basic_auth_users: s3cret\n", "want an exporter-toolkit configuration"},
		{"metrics", "--web.config.file " + web, "basic_auth_users:\n  u: s3cret\n", "want an exporter-toolkit configuration"},
		{"metrics", "--web.config.file " + web, "basic_auth_users:\n  u: [s3cret]\n", "want an exporter-toolkit configuration"},
		{"mock_worker", "--nats-server nats://u:s3cret@h:port", "", "malformed"},
		{"mock_worker", "--nats-server nats://u:s3cret\xff@h:4222", "", "want UTF-8"},
	} {
		if c.web != "" {
			if err := os.WriteFile(web, []byte(c.web), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := strings.Fields(c.args)
		if c.program == "metrics" {
			args = append(args, "--host", "127.0.0.1", "--metrics-port", "0")
		}
		p := start(t, c.program, []string{"DYN_LOG=trace", "ETCD_ENDPOINTS=127.0.0.1:1"}, args...)
		if code := p.Wait(); code == 0 || !strings.Contains(p.LastLine(), c.want) {
			t.Errorf("%s: exit code %d and %q, want %q", c.args, code, p.LastLine(), c.want)
		}
		checkNoSecret(t, c.args, p.Lines()...)
	}
	for _, program := range []string{"metrics", "mock_worker"} {
		cmd := exec.Command(filepath.Join(bin, program), "--help")
		cmd.Env = []string{"NATS_SERVER=nats://u:s3cret@h:4222", "ETCD_ENDPOINTS=http://u:s3cret@h", "NATS_AUTH_PASSWORD=s3cret"}
		help, err := cmd.Output()
		if err != nil || !strings.Contains(string(help), "nats://***@h:4222") {
			t.Errorf("%s --help: %v\n%s", program, err, help)
		}
		checkNoSecret(t, program+" --help", string(help))
	}
}

// TestSecretsOfThePushgatewayAreNotForwarded uses a gateway that redirects to another
// server on the same host.
func TestSecretsOfThePushgatewayAreNotForwarded(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s with %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}))
	defer other.Close()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer gateway.Close()
	m := serve(t, nil, "--discovery", "file", "--file-kv", t.TempDir(), "--nats-server", "none",
		"--push", "--push-interval", "1", "--push-url", strings.Replace(gateway.URL, "http://", "http://push:s3cret@", 1))
	m.WaitForLine("Failed to push metrics to Pushgateway; trying again at every interval error=\"307 Temporary Redirect: the redirect to " + other.URL + "/metrics/job/")
	m.waitFor(func(p samples) error {
		if p[`dynamo_metrics_errors_total{source="push"}`] == "0" || p[`dynamo_metrics_push_total{result="error"}`] == "0" {
			return fmt.Errorf("no push has failed: %v", p.filter("push"))
		}
		return nil
	})
	m.Terminate()
	checkNoSecret(t, "log", m.Lines()...)
}
