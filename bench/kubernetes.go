package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"time"

	"dynamo-metrics/internal/kube/kubetest"
)

const (
	kubeNamespace  = "bench"
	podsOfOneSlice = 100 // by default, Kubernetes makes no larger EndpointSlice
)

// measureKubernetes measures how long the program takes to discover a fleet in Kubernetes,
// its resident memory then, and how long /metrics still shows an EndpointSlice of pods that
// are no longer ready. The API server is that of the tests. The workers publish nothing.
func (s *environment) measureKubernetes(ctx context.Context) error {
	for _, n := range s.sizes() {
		if err := s.measureKubernetesOf(ctx, n); err != nil {
			return fmt.Errorf("%d workers: %w", n, err)
		}
	}
	return nil
}

func (s *environment) measureKubernetesOf(ctx context.Context, workers int) error {
	const namespace = "bench-kubernetes"
	api := new(kubetest.Server)
	for i := range workers {
		api.Put(kubetest.WorkerMetadata, podResource(namespace, i))
	}
	for slice := range workers / podsOfOneSlice {
		api.Put(kubetest.EndpointSlices, podSlice(slice, true))
	}
	web := httptest.NewServer(api)
	defer web.Close()
	defer web.CloseClientConnections()
	defer api.EndWatches()
	m, err := s.startMetrics(ctx, namespace, "--nats-server", "none", "--discovery", "kubernetes", "--kubernetes-api", web.URL, "--kubernetes-namespace", kubeNamespace)
	if err != nil {
		return err
	}
	defer m.terminate()
	ready := time.Since(m.started)
	if err := m.waitForSeries(ctx, "llm_worker_up{", workers); err != nil {
		return err
	}
	_, peak, err := m.resident()
	if err != nil {
		return err
	}
	begin := time.Now()
	api.Put(kubetest.EndpointSlices, podSlice(0, false))
	if err := m.waitForSeries(ctx, "llm_worker_up{", workers-podsOfOneSlice); err != nil {
		return err
	}
	gone := time.Since(begin)
	what := fmt.Sprintf("Kubernetes discovery of %s workers, resources of 6 kB: ", count(workers))
	s.table.add(row{measure: what + "exec to ready", ours: milliseconds(ready)})
	s.table.add(row{measure: what + "peak resident memory", ours: megabytes(peak)})
	s.table.add(row{measure: what + "a slice of 100 is no longer ready: until /metrics shows it", ours: milliseconds(gone)})
	return nil
}

// podResource returns the resource that a worker of 1.6 writes: an endpoint, a model card, event
// channels (of topics that only routers subscribe to), and the fields that the API server
// adds.
func podResource(namespace string, i int) kubetest.Object {
	name, id := fmt.Sprintf("worker-%d", i), i+1
	key := fmt.Sprintf("%s/backend/generate/%x", namespace, id)
	channels := kubetest.Object{}
	for publisher := range 2 {
		channels[fmt.Sprintf("namespace/%s/component/backend/endpoint/generate/topic/kv-events/%x", namespace, 2*id+publisher)] = kubetest.Object{
			"type": "EventChannel", "topic": "kv-events", "instance_id": 2*id + publisher, "namespace": namespace, "component": "backend",
			"scope":     kubetest.Object{"kind": "endpoint", "endpoint": kubetest.Object{"namespace": namespace, "component": "backend", "name": "generate"}},
			"transport": kubetest.Object{"kind": "Zmq", "config": kubetest.Object{"endpoint": "tcp://192.0.2.2:36039"}},
		}
	}
	return kubetest.Object{
		"metadata": kubetest.Object{
			"name": name, "namespace": kubeNamespace,
			"managedFields":   []any{kubetest.Object{"manager": "dynamo-worker", "fieldsV1": strings.Repeat("f", 2500)}},
			"ownerReferences": []any{kubetest.Object{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "uid-of-" + name}},
		},
		"spec": kubetest.Object{"data": kubetest.Object{
			"endpoints": kubetest.Object{key: kubetest.Object{
				"type": "Endpoint", "namespace": namespace, "component": "backend", "endpoint": "generate", "instance_id": id,
				"transport": kubetest.Object{"tcp": fmt.Sprintf("192.0.2.2:39061/%x/%s", id, namespace)},
			}},
			"event_channels": channels,
			"model_cards": kubetest.Object{key: kubetest.Object{"type": "Model", "card_json": kubetest.Object{
				"display_name": "m", "kv_cache_block_size": 16, "runtime_config": kubetest.Object{"total_kv_blocks": 1000, "max_num_seqs": 100},
				"prompt_formatter": strings.Repeat("p", 1500),
			}}},
		}},
	}
}

func podSlice(slice int, ready bool) kubetest.Object {
	var endpoints []any
	for i := range podsOfOneSlice {
		name := fmt.Sprintf("worker-%d", slice*podsOfOneSlice+i)
		endpoints = append(endpoints, kubetest.Object{
			"addresses": []any{"192.0.2.2"}, "conditions": kubetest.Object{"ready": ready},
			"targetRef": kubetest.Object{"kind": "Pod", "name": name, "uid": "uid-of-" + name},
		})
	}
	return kubetest.Object{
		"metadata":  kubetest.Object{"name": fmt.Sprintf("slice-%d", slice), "namespace": kubeNamespace, "labels": kubetest.Object{"nvidia.com/dynamo-discovery-enabled": "true"}},
		"endpoints": endpoints,
		"ports":     []any{kubetest.Object{"name": "system", "port": 9090}},
	}
}
