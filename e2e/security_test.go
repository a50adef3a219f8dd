package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/testutil"

	"github.com/google/go-cmp/cmp"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

func security(t *testing.T) string {
	t.Helper()
	return string(readFile(t, "../SECURITY.md"))
}

// documentedUser returns the NATS user in SECURITY.md.
func documentedUser(t *testing.T) *natsserver.User {
	t.Helper()
	_, block, _ := strings.Cut(security(t), "```\nauthorization {")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("SECURITY.md has no authorization block")
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte("authorization {"+block), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := natsserver.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(opts.Users) != 1 || opts.Users[0].Permissions == nil {
		t.Fatalf("SECURITY.md: got users %+v, want one with permissions", opts.Users)
	}
	return opts.Users[0]
}

// admin is a user with all permissions, for the test itself and for workers.
const admin, adminPassword = "admin", "adm1n"

// startProtectedNATS starts a NATS server that knows one user and admin.
func startProtectedNATS(t *testing.T, user *natsserver.User) *devstack.NATSServer {
	t.Helper()
	s, err := devstack.NATS(devstack.NATSConfig{Dir: t.TempDir(), Tune: func(o *natsserver.Options) {
		o.Users = []*natsserver.User{user, {Username: admin, Password: adminPassword}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// grant is a command in SECURITY.md that grants a permission to the role.
type grant struct {
	kind     clientv3.PermissionType
	key, end string
}

func documentedGrants(t *testing.T) []grant {
	t.Helper()
	var all []grant
	for line := range strings.Lines(security(t)) {
		words := strings.Fields(line)
		if len(words) < 6 || strings.Join(words[:4], " ") != "etcdctl role grant-permission metrics" {
			continue
		}
		prefix := words[4] == "--prefix=true"
		if prefix {
			words = slices.Delete(words, 4, 5)
		}
		kind, known := map[string]clientv3.PermissionType{
			"read": clientv3.PermissionType(clientv3.PermRead), "readwrite": clientv3.PermissionType(clientv3.PermReadWrite),
		}[words[4]]
		if !known || len(words) != 6 {
			t.Fatalf("SECURITY.md: %q", line)
		}
		g := grant{kind: kind, key: words[5]}
		if prefix {
			g.end = clientv3.GetPrefixRangeEnd(g.key)
		}
		all = append(all, g)
	}
	if len(all) == 0 {
		t.Fatal("SECURITY.md grants nothing in etcd")
	}
	return all
}

// startProtectedEtcd starts an etcd with authentication, and returns it with a client of
// its root user.
func startProtectedEtcd(t *testing.T) (*devstack.EtcdServer, *clientv3.Client) {
	t.Helper()
	s, err := devstack.Etcd(devstack.EtcdConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	dial := func(user, password string) *clientv3.Client {
		ec, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Username: user, Password: password, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ec.Close() })
		return ec
	}
	open := dial("", "")
	_, err1 := open.UserAdd(t.Context(), "root", adminPassword)
	_, err2 := open.UserGrantRole(t.Context(), "root", "root")
	_, err3 := open.AuthEnable(t.Context())
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return s, dial("root", adminPassword)
}

// addUser adds a user, and a role of the same name.
func addUser(t *testing.T, root *clientv3.Client, name, password string, grants []grant) {
	t.Helper()
	_, err1 := root.RoleAdd(t.Context(), name)
	_, err2 := root.UserAdd(t.Context(), name, password)
	_, err3 := root.UserGrantRole(t.Context(), name, name)
	errs := []error{err1, err2, err3}
	for _, g := range grants {
		_, err := root.RoleGrantPermission(t.Context(), name, g.key, g.end, g.kind)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func natsEnv(s *devstack.NATSServer, user, password string) []string {
	return []string{"NATS_SERVER=" + s.URL(), "NATS_AUTH_USERNAME=" + user, "NATS_AUTH_PASSWORD=" + password}
}

func etcdEnv(s *devstack.EtcdServer, user, password string) []string {
	return []string{"ETCD_ENDPOINTS=" + s.Endpoint(), "ETCD_AUTH_USERNAME=" + user, "ETCD_AUTH_PASSWORD=" + password}
}

// TestSecurityDocumentedPermissionsSuffice runs the program with the permissions in
// SECURITY.md beside workers of an old and a new release.
func TestSecurityDocumentedPermissionsSuffice(t *testing.T) {
	t.Parallel()
	user := documentedUser(t)
	bus := startProtectedNATS(t, user)
	registry, root := startProtectedEtcd(t)
	addUser(t, root, "metrics", "s3cret", documentedGrants(t))
	nc, err := nats.Connect(bus.URL(), nats.UserInfo(admin, adminPassword), nats.Timeout(testutil.WaitTimeout))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l2c, err := nc.SubscribeSync("namespace.dynamo.l2c.>")
	if err != nil {
		t.Fatal(err)
	}

	// The program starts first, so that it receives what workers publish only once.
	m := serve(t, slices.Concat(natsEnv(bus, user.Username, user.Password), etcdEnv(registry, "metrics", "s3cret"), []string{"DYN_LOG=trace"}),
		"--poll-interval", "0.1")
	m.waitForSamples(samples{`dynamo_metrics_connected{system="nats"}`: "1", "dynamo_metrics_leader": "1"})
	workers := slices.Concat(natsEnv(bus, admin, adminPassword), etcdEnv(registry, "root", adminPassword))
	start(t, "mock_worker", workers, "--event-interval", "0.1", "--correlated", "--component", "old")
	start(t, "mock_worker", workers, "--event-interval", "0.1", "--component", "new", "--release", "1.6.1", "--event-plane", "nats")
	m.waitUntilReady()
	m.waitFor(func(p samples) error {
		for _, want := range []string{
			`llm_worker_up{component="old"`, `llm_kv_blocks_active{component="old"`, `llm_kv_hit_rate_isl_blocks{component="old"`,
			`llm_worker_up{component="new"`, `llm_kv_blocks_active{component="new"`, `llm_forward_passes_total{component="new"`,
			`llm_request_duration_seconds_count{component="new"`, `llm_kv_hit_rate_isl_blocks{component="new"`, `llm_worker_info{component="new"`,
		} {
			part := p.filter(want)
			if len(part) != 1 {
				return fmt.Errorf("%d series with %s, want one", len(part), want)
			}
			for series, value := range part {
				if value == "0" && strings.HasPrefix(series, "llm_worker_up") {
					return fmt.Errorf("%s is 0", series)
				}
			}
		}
		return nil
	})
	if _, err := l2c.NextMsgWithContext(t.Context()); err != nil {
		t.Error("l2c event:", err)
	}
	m.Terminate()
	for _, line := range m.Lines() {
		if strings.Contains(line, " WARN nats: ") || strings.Contains(line, " WARN etcd: ") || strings.Contains(strings.ToLower(line), "permission") {
			t.Errorf("refused: %s", line)
		}
	}
	if got, err := root.Get(t.Context(), instanceKey); err != nil || len(got.Kvs) > 0 {
		t.Errorf("the unique instance's key: %v, %v; want it gone", got, err)
	}
}

// TestSecurityDocumentedNATSPermissionsAreUsed denies all permissions that the program can
// do without. It must log each denial once.
func TestSecurityDocumentedNATSPermissionsAreUsed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := documentedUser(t)
	documented := user.Permissions
	const stats, inbox, l2c = "$SRV.STATS.*", "_INBOX.dynamo-metrics.>", "namespace.dynamo.l2c.>"
	if want := []string{stats, l2c}; !cmp.Equal(documented.Publish.Allow, want) {
		t.Errorf("SECURITY.md allows publishing %q, want %q", documented.Publish.Allow, want)
	}
	user.Permissions = &natsserver.Permissions{
		Publish:   &natsserver.SubjectPermission{Allow: []string{stats}},
		Subscribe: &natsserver.SubjectPermission{Allow: []string{inbox}},
	}
	bus := startProtectedNATS(t, user)
	start(t, "mock_worker", append(natsEnv(bus, admin, adminPassword), "ETCD_ENDPOINTS="+s.Etcd.Endpoint()))
	m := serve(t, append(natsEnv(bus, user.Username, user.Password), "ETCD_ENDPOINTS="+s.Etcd.Endpoint()), "--poll-interval", "0.05")
	m.waitForSamples(samples{workersSeries("generate", "answering"): "1"})
	m.WaitForLine("namespace.dynamo.l2c.backend.generate")
	m.waitFor(func(p samples) error { // each poll would publish, and be denied
		const want = 20
		if polls, _ := strconv.Atoi(p[`dynamo_metrics_polls_total{result="ok"}`]); polls < want {
			return fmt.Errorf("%d polls, want %d", polls, want)
		}
		return nil
	})
	denial := regexp.MustCompile(`Permissions Violation for (Publish|Subscription) to [\\"]*([^\\"]+)`)
	denied := make(map[string][]string)
	for _, line := range m.LinesWith("NATS denies a permission") {
		found := denial.FindStringSubmatch(line)
		if found == nil {
			t.Fatalf("not a permission: %s", line)
		}
		denied[found[1]] = append(denied[found[1]], found[2])
	}
	want := map[string][]string{
		"Publish":      {"namespace.dynamo.l2c.backend.generate"},
		"Subscription": slices.DeleteFunc(slices.Clone(documented.Subscribe.Allow), func(s string) bool { return s == inbox }),
	}
	for _, subjects := range []map[string][]string{denied, want} {
		slices.Sort(subjects["Subscription"])
	}
	if diff := cmp.Diff(want, denied); diff != "" {
		t.Errorf("denied (-SECURITY.md +log, each once):\n%s", diff)
	}
	m.waitUntilNotReady("NATS denies the permission for namespace.dynamo.kv-hit-rate and namespace.dynamo.kv_metrics and " +
		"namespace.dynamo.component.*.kv_metrics and namespace.dynamo.component.*.endpoint.*.kv_metrics")
}

// TestSecurityDocumentedEtcdPermissionsAreNeeded checks that the program refuses to start
// without one of them, because /metrics would lack workers.
func TestSecurityDocumentedEtcdPermissionsAreNeeded(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	registry, root := startProtectedEtcd(t)
	grants := documentedGrants(t)
	for i, missing := range grants {
		name := fmt.Sprintf("without%d", i)
		addUser(t, root, name, "s3cret", slices.Delete(slices.Clone(grants), i, i+1))
		env := append(etcdEnv(registry, name, "s3cret"), "NATS_SERVER="+s.NATS.URL())
		code, last := runToFailure(t, "metrics", env, "--host", "127.0.0.1", "--metrics-port", "0")
		if code != 1 || !strings.Contains(last, missing.key+":") || !strings.Contains(last, "permission denied") {
			t.Errorf("without %s: exit code %d and %q, want 1 and what is denied", missing.key, code, last)
		}
	}
}

// TestSecurityOverMutualTLS uses servers that require client certificates.
func TestSecurityOverMutualTLS(t *testing.T) {
	t.Parallel()
	a, unknown := testutil.NewAuthorityWithCertificates(t), testutil.NewAuthorityWithCertificates(t)
	config, err := natsserver.GenTLSConfig(&natsserver.TLSConfigOpts{
		CertFile: a.File("server.crt"), KeyFile: a.File("server.key"), CaFile: a.File("ca.crt"), Verify: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	bus, err := devstack.NATS(devstack.NATSConfig{Dir: t.TempDir(), Tune: func(o *natsserver.Options) {
		o.TLS, o.TLSVerify, o.TLSConfig, o.TLSTimeout = true, true, config, 10
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	registry, err := devstack.Etcd(devstack.EtcdConfig{Dir: t.TempDir(), Tune: func(c *embed.Config) {
		c.ListenClientUrls[0].Scheme = "https"
		c.AdvertiseClientUrls = c.ListenClientUrls
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = a.File("server.crt"), a.File("server.key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = a.File("ca.crt"), true
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.Close)
	servers := []string{"NATS_SERVER=" + strings.Replace(bus.URL(), "nats", "tls", 1), "ETCD_ENDPOINTS=" + registry.Endpoint()}
	as := func(of *testutil.Authority) (env, flags []string) {
		return append([]string{"ETCD_AUTH_CA=" + a.File("ca.crt"), "ETCD_AUTH_CLIENT_CERT=" + of.File("client.crt"), "ETCD_AUTH_CLIENT_KEY=" + of.File("client.key")}, servers...),
			[]string{"--nats-tls-ca", a.File("ca.crt"), "--nats-tls-cert", of.File("client.crt"), "--nats-tls-key", of.File("client.key")}
	}

	env, flags := as(a)
	start(t, "mock_worker", env, flags...)
	m := serve(t, env, append(flags, "--poll-interval", "0.1")...)
	m.waitUntilReady()
	m.waitForSamples(samples{workersSeries("generate", "answering"): "1"})
	m.Terminate()

	otherEnv, otherFlags := as(unknown)
	for name, c := range map[string]struct{ env, flags, want []string }{
		"no certificates": {servers, nil, []string{"--nats-tls-ca names", "ETCD_AUTH_CA names"}},
		"of another CA":   {otherEnv, otherFlags, []string{"--nats-tls-cert and --nats-tls-key identify", "ETCD_AUTH_CLIENT_CERT and ETCD_AUTH_CLIENT_KEY identify"}},
	} {
		m := serve(t, c.env, c.flags...)
		m.WaitForLine("NATS is not connected; retrying")
		m.WaitForLine("etcd is not connected; keeping the last known fleet")
		for _, want := range c.want {
			m.WaitForLine(want)
		}
		if status, _ := get(m.url + "/-/healthy"); status != 200 {
			t.Errorf("%s: not healthy", name)
		}
		m.Terminate()
		if warnings := m.LinesWith(" WARN "); len(warnings) != 2 {
			t.Errorf("%s: want one line for each server:\n%s", name, strings.Join(warnings, "\n"))
		}
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--nats-tls-ca " + a.File("nowhere"), 2, "--nats-tls-ca: open " + a.File("nowhere")},
		{"--nats-tls-ca " + a.File("ca.key"), 2, "--nats-tls-ca: " + a.File("ca.key") + " holds no certificate: want PEM"},
		{"--nats-tls-cert " + a.File("client.crt"), 2, `--nats-tls-cert "` + a.File("client.crt") + `": needs --nats-tls-key`},
		{"--nats-server none --nats-tls-ca " + a.File("ca.crt"), 2, "--nats-tls-ca: needs --nats-server"},
	} {
		for program, more := range map[string]string{"metrics": " --metrics-port 0", "mock_worker": " --release 1.6.1"} {
			p := start(t, program, servers, strings.Fields(c.args+more)...)
			if code := p.Wait(); code != c.code || !strings.Contains(p.LastLine(), c.want) || len(p.LinesWith(c.want)) != 1 {
				t.Errorf("%s %s: exit code %d and %q, want %d and %q", program, c.args, code, p.LastLine(), c.code, c.want)
			}
		}
	}
}

func TestSecurityProfilesAreOffByDefault(t *testing.T) {
	t.Parallel()
	const path = "/debug/pprof/heap?debug=1"
	for _, c := range []struct {
		flags []string
		want  int
	}{{nil, 404}, {[]string{"--debug.pprof"}, 200}} {
		m := serve(t, []string{"NATS_SERVER=127.0.0.1:1", "ETCD_ENDPOINTS=127.0.0.1:1"}, c.flags...)
		testutil.Until(t, func() error {
			if status, body := get(m.url + path); status != c.want {
				return fmt.Errorf("GET %s with %q: %d %s, want %d", path, c.flags, status, body, c.want)
			}
			return nil
		})
	}
	if code, last := runToFailure(t, "metrics", nil, "--push", "--debug.pprof"); code != 2 || !strings.Contains(last, "--debug.pprof: needs --metrics-port") {
		t.Errorf("with --push alone: exit code %d and %q, want 2", code, last)
	}
}

func TestSecurityNamesExistingFlagsAndVariables(t *testing.T) {
	t.Parallel()
	named := docs(t)
	for line := range strings.Lines(security(t)) {
		if strings.HasPrefix(line, "etcdctl ") {
			continue
		}
		for _, name := range append(find(line, "`"+flagName), find(line, `\b(?:NATS|ETCD|DYN)_[A-Z_]+\b`)...) {
			if name = strings.Trim(name, "`"); !strings.Contains(named, name) {
				t.Errorf("SECURITY.md mentions %s, and neither README.md nor docs does", name)
			}
		}
	}
}
