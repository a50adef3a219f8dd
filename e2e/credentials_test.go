package e2e

import (
	"errors"
	"strings"
	"testing"

	"dynamo-metrics/internal/devstack"

	natsserver "github.com/nats-io/nats-server/v2/server"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestCredentialsRefusedByNATSExitWith1(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	locked, err := devstack.NATS(devstack.NATSConfig{Dir: t.TempDir(), Tune: func(o *natsserver.Options) {
		o.Username, o.Password = "metrics", "s3cret"
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(locked.Close)
	env := []string{"NATS_SERVER=" + locked.URL(), "ETCD_ENDPOINTS=" + s.Etcd.Endpoint()}

	refused := append([]string{"NATS_AUTH_USERNAME=metrics", "NATS_AUTH_PASSWORD=wr0ng"}, env...)
	code, last := runToFailure(t, "metrics", refused, "--component", "backend", "--host", "127.0.0.1", "--metrics-port", "0")
	if code != 1 || !strings.Contains(last, "NATS_AUTH_PASSWORD") || strings.Contains(last, "wr0ng") {
		t.Errorf("exit code %d and %q; want 1, and where the refused credentials are from, without them", code, last)
	}
	accepted := append([]string{"NATS_AUTH_USERNAME=metrics", "NATS_AUTH_PASSWORD=s3cret"}, env...)
	serve(t, accepted, "--component", "backend").waitUntilReady()
}

func TestCredentialsRefusedByEtcdExitWith1(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	ctx := t.Context()
	_, err1 := s.etcd.UserAdd(ctx, "root", "r00t")
	_, err2 := s.etcd.UserGrantRole(ctx, "root", "root")
	_, err3 := s.etcd.UserAdd(ctx, "metrics", "s3cret")
	_, err4 := s.etcd.RoleAdd(ctx, "reader")
	_, err5 := s.etcd.UserGrantRole(ctx, "metrics", "reader")
	_, err6 := s.etcd.RoleGrantPermission(ctx, "reader", "dynamo/components/", clientv3.GetPrefixRangeEnd("dynamo/components/"), clientv3.PermissionType(clientv3.PermReadWrite))
	_, err7 := s.etcd.AuthEnable(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		t.Fatal(err)
	}
	run := func(user, password string) (int, string) {
		env := append([]string{"ETCD_AUTH_USERNAME=" + user, "ETCD_AUTH_PASSWORD=" + password}, s.env()...)
		return runToFailure(t, "metrics", env, "--component", "backend", "--host", "127.0.0.1", "--metrics-port", "0")
	}
	if code, last := run("metrics", "wr0ng"); code != 1 || !strings.Contains(last, "ETCD_AUTH_PASSWORD") || strings.Contains(last, "wr0ng") {
		t.Errorf("wrong password: exit code %d and %q; want 1, and where it is from, without it", code, last)
	}
	if code, last := run("metrics", "s3cret"); code != 1 || !strings.Contains(last, "instances/dynamo/") || !strings.Contains(last, "permission denied") {
		t.Errorf("a user who may not read the registry: exit code %d and %q; want 1, and what is denied", code, last)
	}
	root := append([]string{"ETCD_AUTH_USERNAME=root", "ETCD_AUTH_PASSWORD=r00t"}, s.env()...)
	serve(t, root, "--component", "backend").waitUntilReady()
}
