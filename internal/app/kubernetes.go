package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/discovery"
	"dynamo-metrics/internal/dynlog"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/leader"

	"golang.org/x/sync/errgroup"
)

// kubernetesConfig holds the settings of Kubernetes discovery.
type kubernetesConfig struct {
	api         string // the API server; empty: that of the cluster in which the program runs
	namespace   string // the Kubernetes namespace
	byContainer bool   // readiness is that of containers instead of pods
	pod         string // the program's own pod, or its host
	client      *kube.Client
}

// validate reads the environment, creates the client, and rejects what does not fit.
func (k *kubernetesConfig) validate(getenv func(string) string) (err error) {
	if k.api == "" {
		if k.client, err = kube.NewInCluster(getenv, kube.ServiceAccountDir); err != nil {
			return fmt.Errorf("--discovery kubernetes: %w", err)
		}
	} else if k.client, err = kube.New(k.api); err != nil {
		return cli.FlagError("kubernetes-api", cli.Redact(k.api), "http(s)://host[:port][/path], such as http://localhost:8001 of kubectl proxy")
	}
	switch mode := getenv("DYN_KUBE_DISCOVERY_MODE"); mode {
	case "", "pod":
	case "container":
		k.byContainer = true
	default:
		return fmt.Errorf("DYN_KUBE_DISCOVERY_MODE %q: want pod or container", mode)
	}
	if k.pod = getenv("POD_NAME"); k.pod == "" {
		k.pod, _ = os.Hostname()
	}
	return nil
}

// runKubernetes watches the Kubernetes namespace and holds the unique instance's Lease.
func runKubernetes(ctx context.Context, c config, f *fleet.Fleet, log *slog.Logger) error {
	registry := discovery.Kubernetes{
		Client:     c.kubernetes.client,
		In:         c.kubernetes.namespace,
		Containers: c.kubernetes.byContainer,
		Namespaces: c.namespaces,
		Fleet:      f,
		MaxWorkers: c.maxWorkers,
		Log:        dynlog.Target(log, "kubernetes"),
	}
	lease := leader.Lease{Client: c.kubernetes.client, In: c.kubernetes.namespace, Namespaces: c.namespaces, Stats: &f.Stats, Log: log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { registry.Watch(ctx); return nil })
	g.Go(func() error { return lease.Hold(ctx, c.kubernetes.pod, instanceValue(c), c.standby) })
	return g.Wait()
}
