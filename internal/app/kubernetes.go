package app

import (
	"context"
	"fmt"
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
type KubernetesOptions struct {
	API         string // the API server; empty: that of the cluster in which the program runs
	Namespace   string // the Kubernetes namespace
	ByContainer bool   // readiness is that of containers instead of pods
	Pod         string // the program's own pod, or its host
	Client      *kube.Client
}

// validate reads the environment, creates the client, and rejects what does not fit.
func (k *KubernetesOptions) validate(getenv func(string) string) (err error) {
	if k.API == "" {
		if k.Client, err = kube.NewInCluster(getenv, kube.ServiceAccountDir); err != nil {
			return fmt.Errorf("--discovery kubernetes: %w", err)
		}
	} else if k.Client, err = kube.New(k.API); err != nil {
		return cli.FlagError("kubernetes-api", cli.Redact(k.API), "http(s)://host[:port][/path], such as http://localhost:8001 of kubectl proxy")
	}
	switch mode := getenv("DYN_KUBE_DISCOVERY_MODE"); mode {
	case "", "pod":
	case "container":
		k.ByContainer = true
	default:
		return fmt.Errorf("DYN_KUBE_DISCOVERY_MODE %q: want pod or container", mode)
	}
	if k.Pod = getenv("POD_NAME"); k.Pod == "" {
		k.Pod, _ = os.Hostname()
	}
	return nil
}

// runKubernetes watches the Kubernetes namespace and holds the unique instance's Lease.
func runKubernetes(ctx context.Context, o Options, f *fleet.Fleet) error {
	registry := discovery.Kubernetes{
		Client:     o.Kubernetes.Client,
		In:         o.Kubernetes.Namespace,
		Containers: o.Kubernetes.ByContainer,
		Namespaces: o.Namespaces,
		Fleet:      f,
		MaxWorkers: o.MaxWorkers,
		Log:        dynlog.Target(o.Log, "kubernetes"),
	}
	lease := leader.Lease{Client: o.Kubernetes.Client, In: o.Kubernetes.Namespace, Namespaces: o.Namespaces, Stats: &f.Stats, Log: o.Log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { registry.Watch(ctx); return nil })
	g.Go(func() error { return lease.Hold(ctx, o.Kubernetes.Pod, instanceValue(o), o.Standby) })
	return g.Wait()
}
