//go:build real

package survival

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats.go"
)

// server is a process that can be killed, and started again at the same address.
type server struct {
	t       *testing.T
	url     string
	path    string
	args    []string
	up      func() error // returns an error until it serves
	running *process.Process
}

// start starts the server, and returns when it serves.
func (s *server) start() {
	s.t.Helper()
	s.launch()
	s.waitUntilServing()
}

func (s *server) launch() {
	s.t.Helper()
	s.running = process.Start(s.t, nil, s.path, s.args...)
}

func (s *server) waitUntilServing() {
	s.t.Helper()
	testutil.Until(s.t, func() error {
		if s.running.HasEnded() {
			s.t.Fatalf("%s has ended", s.path)
		}
		return s.up()
	})
}

func (s *server) kill() { s.running.Kill() }

// natsServer returns a nats-server that is not started yet.
func natsServer(t *testing.T, flags ...string) *server {
	t.Helper()
	address := process.FreeAddress(t)
	host, port, _ := net.SplitHostPort(address)
	return &server{
		t: t, url: "nats://" + address, path: process.NATSServer(t),
		args: append([]string{"-a", host, "-p", port}, flags...),
		up:   func() error { return checkNATSGreeting(address) },
	}
}

// checkNATSGreeting returns an error unless a NATS server sends its INFO line.
func checkNATSGreeting(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "INFO ") {
		err = fmt.Errorf("%s sends %q", address, line)
	}
	return err
}

// natsCluster returns a cluster of three servers.
func natsCluster(t *testing.T) (nodes [3]*server) {
	t.Helper()
	var routes [3]string
	for i := range routes {
		routes[i] = "nats://" + process.FreeAddress(t)
	}
	for i := range nodes {
		monitor := process.FreeAddress(t)
		_, port, _ := net.SplitHostPort(monitor)
		nodes[i] = natsServer(t, "-m", port, "-cluster_name", "three", "-cluster", routes[i], "-routes", strings.Join(routes[:], ","))
		nodes[i].up = func() error { return checkRoutes(monitor, len(nodes)-1) }
		nodes[i].launch()
	}
	for _, n := range nodes {
		n.waitUntilServing()
	}
	return nodes
}

// checkRoutes returns an error unless a server of a cluster has routes to n others.
func checkRoutes(monitor string, n int) error {
	body, err := body("http://" + monitor + "/routez")
	if err != nil {
		return err
	}
	var v struct {
		Routes []struct {
			Remote string `json:"remote_id"`
		}
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return err
	}
	others := make(map[string]bool)
	for _, r := range v.Routes {
		others[r.Remote] = true
	}
	if len(others) != n {
		return fmt.Errorf("%s has routes to %d servers, want %d", monitor, len(others), n)
	}
	return nil
}

// etcdServers returns the members of a new cluster, not started yet.
func etcdServers(t *testing.T, n int) []*server {
	t.Helper()
	path := process.Installed(t, "etcd", "etcd-server")
	var peers, cluster []string
	for i := range n {
		peers = append(peers, "http://"+process.FreeAddress(t))
		cluster = append(cluster, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	var members []*server
	for i := range n {
		url := "http://" + process.FreeAddress(t)
		members = append(members, &server{t: t, url: url, path: path, up: func() error { return checkHealth(url) },
			args: []string{"--data-dir", filepath.Join(t.TempDir(), "etcd"), "--logger", "zap", "--log-level", "error",
				"--name", fmt.Sprintf("m%d", i), "--listen-client-urls", url, "--advertise-client-urls", url,
				"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
				"--initial-cluster", strings.Join(cluster, ",")}})
	}
	return members
}

func checkHealth(url string) error {
	_, err := body(url + "/health")
	return err
}

// movedAway returns the same etcd with the same data at another address, where no other
// client connects.
func (s *server) movedAway() *server {
	url := "http://" + process.FreeAddress(s.t)
	o := &server{t: s.t, url: url, path: s.path, up: func() error { return checkHealth(url) }}
	for _, a := range s.args {
		if a == s.url {
			a = url
		}
		o.args = append(o.args, a)
	}
	return o
}

// dialNATS opens a connection that survives outages of the servers.
func dialNATS(t *testing.T, urls string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(urls, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ReconnectBufSize(-1), nats.PingInterval(time.Second), nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

// get makes one HTTP request.
func get(url string) (status int, text string, err error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// body returns the body of a response, whose status must be 200.
func body(url string) (string, error) {
	status, text, err := get(url)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET %s: %d %s", url, status, text)
	}
	return text, err
}

// slack is the extra time that a busy machine may take.
const slack = time.Second

// checkWithin fails the test unless check returns nil within d, which is the promised time.
// It logs the real time.
func checkWithin(t *testing.T, d time.Duration, check func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			t.Logf("succeeded after %v", time.Since(start).Round(time.Millisecond))
			return
		}
		if time.Since(start) > d+slack {
			t.Fatalf("still after %v: %v", d, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// checkThroughout fails the test if check returns an error at any time within d.
func checkThroughout(t *testing.T, d time.Duration, check func() error) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := check(); err != nil {
			t.Fatal(err)
		}
	}
}

var errEnded = errors.New("the program has ended")
