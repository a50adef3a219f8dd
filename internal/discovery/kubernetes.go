package discovery

import (
	"cmp"
	"context"
	"hash/maphash"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// selector is the label that Dynamo's operator sets on objects to be discovered.
const selector = "nvidia.com/dynamo-discovery-enabled=true"

// Kubernetes is the registry of Dynamo namespaces in a Kubernetes namespace (0.8 to 1.6). Each
// worker process writes one resource that lists what it serves. The process is alive while its
// pod, or its container, is ready. There are no leases: a resource outlives its process, and is
// deleted with the pod.
type Kubernetes struct {
	Client     *kube.Client
	In         string // the Kubernetes namespace
	Containers bool   // DYN_KUBE_DISCOVERY_MODE=container: a process is a container, not a pod
	Namespaces wire.Namespaces
	Fleet      *fleet.Fleet
	MaxWorkers int // the Fleet's limit, which bounds what is read
	Log        *slog.Logger
}

// Watch keeps the Fleet's copy of the registry equal to the cluster's until ctx ends. While the
// API server is unreachable or refuses requests, the Fleet forgets nothing.
func (k *Kubernetes) Watch(ctx context.Context) {
	k.Log.Info("Watching Dynamo's workers in the Kubernetes namespace "+k.In, "server", k.Client.Server())
	c := newCluster(reader{namespaces: k.Namespaces, fleet: k.Fleet, log: k.Log}, k.Containers, k.MaxWorkers)
	defer k.Fleet.Stats.Kubernetes.SetConnected(false)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		kube.ListWatch(ctx, k.Client, kube.Collection{Group: "nvidia.com", Version: "v1alpha1", Namespace: k.In, Resource: "dynamoworkermetadatas"},
			kube.Handler[workerMetadata]{OnUpsert: c.upsertResource, OnDelete: c.deleteResource, OnSynced: c.onResourcesSynced, OnDecodeError: c.onDecodeError, OnState: c.stateHandler(0)})
	})
	watching.Go(func() {
		if k.Containers {
			kube.ListWatch(ctx, k.Client, kube.Collection{Version: "v1", Namespace: k.In, Resource: "pods", Selector: selector},
				kube.Handler[pod]{OnUpsert: c.upsertPod, OnDelete: c.deletePod, OnSynced: c.onReadinessSynced, OnDecodeError: c.onDecodeError, OnState: c.stateHandler(1)})
		} else {
			kube.ListWatch(ctx, k.Client, kube.Collection{Group: "discovery.k8s.io", Version: "v1", Namespace: k.In, Resource: "endpointslices", Selector: selector},
				kube.Handler[endpointSlice]{OnUpsert: c.upsertSlice, OnDelete: c.deleteSlice, OnSynced: c.onReadinessSynced, OnDecodeError: c.onDecodeError, OnState: c.stateHandler(1)})
		}
	})
	for backoff.Wait(ctx, time.Second) {
		c.resync()
	}
}

// process identifies a worker process: a pod, or in container mode a container of a pod.
type process struct {
	pod       string // the pod's UID: a new pod of the same name is another process
	container string // empty if a process is a pod
}

// cluster holds what is known about the resources and the readiness of processes.
type cluster struct {
	reader
	containers bool
	limit      int // bounds the resources, and the entries of all of them
	seed       maphash.Seed

	mu             sync.Mutex
	resources      map[string]*resource // by name
	owned          map[process]map[*resource]bool
	readyBySource  map[string]map[process]string // host:port of the metrics of ready processes, or empty, by slice or pod and then by process
	readyByProcess map[process]map[string]string // the same by process and then by slice or pod
	entryCount     int                           // of all resources
	listed         [2]bool                       // resources; readiness
	synced         bool                          // the Fleet has a copy
	errs           [2]string                     // the last errors of resources and readiness
}

func newCluster(r reader, containers bool, maxWorkers int) *cluster {
	return &cluster{
		reader:         r,
		containers:     containers,
		limit:          maxListed(maxWorkers),
		seed:           maphash.MakeSeed(),
		resources:      make(map[string]*resource),
		owned:          make(map[process]map[*resource]bool),
		readyBySource:  make(map[string]map[process]string),
		readyByProcess: make(map[process]map[string]string),
	}
}

// resource is what one process registered.
type resource struct {
	process        process
	version        string
	unknownEntries int                      // entries of unknown kinds
	entries        map[string]resourceEntry // by key
	applied        map[string]entry         // the part that the Fleet has
}

// resourceEntry is one entry of a resource.
type resourceEntry struct {
	hash  uint64 // a hash of its JSON
	entry entry
}

// stateHandler returns the OnState handler of one of the two collections.
func (c *cluster) stateHandler(which int) func(error) {
	return func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		message := ""
		if err != nil {
			message = err.Error()
			c.fleet.Stats.CountFailure(stats.PeerKubernetes)
		}
		was := c.errs[which]
		c.errs[which] = message
		c.fleet.Stats.Kubernetes.SetConnected(c.synced && c.errs == [2]string{})
		c.fleet.Stats.Kubernetes.SetError(cmp.Or(c.errs[0], c.errs[1]))
		switch {
		case message != "" && message != was:
			c.log.Warn("The Kubernetes API cannot be read; keeping the last known fleet and retrying", "error", message)
		case message == "" && was != "":
			c.log.Info("The Kubernetes API can be read again")
		}
	}
}

// onDecodeError counts an object that cannot be decoded.
func (c *cluster) onDecodeError(err error) {
	c.fleet.Stats.CountMessage(stats.InstanceKeys)
	c.fleet.Stats.CountRejected(stats.InstanceKeys, stats.BadJSON)
	c.log.Debug("Ignored an object of the Kubernetes API", "error", err)
}

// reconcile updates the Fleet's copy of a resource: the Fleet has all of it while its process is
// ready, and otherwise nothing.
func (c *cluster) reconcile(r *resource) {
	if !c.synced {
		return
	}
	wanted := c.desired(r)
	for key, e := range r.applied {
		if _, stays := wanted[key]; !stays {
			c.remove(&e)
		}
	}
	// Instances come before their cards and channels.
	for _, kind := range []stats.Kind{stats.InstanceKeys, stats.CardKeys, stats.ChannelKeys} {
		for key, e := range wanted {
			if e.kind == kind && r.applied[key] != e {
				c.add(&e)
			}
		}
	}
	r.applied = wanted
}

// desired returns the part of a resource that the Fleet should have. A model card without an
// endpoint is left out, because its worker was stopped.
func (c *cluster) desired(r *resource) map[string]entry {
	sources := c.readyByProcess[r.process]
	if len(sources) == 0 {
		return nil
	}
	metrics := ""
	for _, m := range sources {
		metrics = max(metrics, m)
	}
	serves := make(map[fleet.Instance]bool)
	for _, s := range r.entries {
		if s.entry.kind == stats.InstanceKeys {
			serves[s.entry.instance] = true
		}
	}
	wanted := make(map[string]entry, len(r.entries))
	for key, s := range r.entries {
		e := s.entry
		if e.kind == stats.CardKeys && !serves[e.instance] {
			continue
		}
		if e.kind == stats.InstanceKeys {
			e.registration.Metrics = metrics
		}
		wanted[key] = e
	}
	return wanted
}

// listing returns the whole registry.
func (c *cluster) listing() fleet.Listing {
	all := newListing()
	for _, r := range c.resources {
		r.applied = c.desired(r)
		for _, e := range r.applied {
			e.appendTo(all)
		}
	}
	return all
}

// resync lists the whole registry again if the Fleet has room for workers that it turned away.
func (c *cluster) resync() {
	if !c.fleet.NeedsSync() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.synced {
		c.fleet.Sync(c.listing())
	}
}

// setReady replaces the ready processes of one slice or pod.
func (c *cluster) setReady(name string, now map[process]string) {
	before := c.readyBySource[name]
	c.readyBySource[name] = now
	if len(now) == 0 {
		delete(c.readyBySource, name)
	}
	for p := range before {
		if _, still := now[p]; !still {
			delete(c.readyByProcess[p], name)
			if len(c.readyByProcess[p]) == 0 {
				delete(c.readyByProcess, p)
			}
			c.reconcileProcess(p)
		}
	}
	for p, metrics := range now {
		if was, known := before[p]; known && was == metrics {
			continue
		}
		if c.readyByProcess[p] == nil {
			c.readyByProcess[p] = make(map[string]string)
		}
		c.readyByProcess[p][name] = metrics
		c.reconcileProcess(p)
	}
}

func (c *cluster) reconcileProcess(p process) {
	for r := range c.owned[p] {
		c.reconcile(r)
	}
}

// onReadinessSynced removes the slices or pods that are not among the names of a complete list.
func (c *cluster) onReadinessSynced(names map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.readyBySource {
		if !names[name] {
			c.setReady(name, nil)
		}
	}
	c.markListed(1)
}

// markListed records that one of the two collections is known. The Fleet gets a listing once both
// are.
func (c *cluster) markListed(which int) {
	c.listed[which] = true
	if !c.synced && c.listed == [2]bool{true, true} {
		c.synced = true
		c.fleet.Sync(c.listing())
	}
}

// endpointSlice has the fields of an EndpointSlice that are read: the pods behind a Service, and
// whether they are ready.
type endpointSlice struct {
	kube.Object
	Endpoints []struct {
		Addresses  []string
		Conditions struct{ Ready *bool }
		TargetRef  *struct{ Kind, Name, UID string }
	}
	Ports []struct {
		Name *string
		Port *uint16
	}
}

func (c *cluster) upsertSlice(s *endpointSlice) {
	port := ""
	for _, p := range s.Ports {
		if p.Name != nil && *p.Name == systemPort && p.Port != nil {
			port = strconv.Itoa(int(*p.Port))
		}
	}
	ready := make(map[process]string)
	for _, e := range s.Endpoints {
		// Dynamo takes an absent condition for not ready. An entry without a UID may belong to
		// a pod that does not exist any more.
		if e.TargetRef == nil || e.TargetRef.UID == "" || e.Conditions.Ready == nil || !*e.Conditions.Ready {
			continue
		}
		ready[process{pod: e.TargetRef.UID}] = metricsAddress(e.Addresses, port)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setReady(s.Metadata.Name, ready)
}

// systemPort is the name of the port where a worker serves its metrics.
const systemPort = "system"

// metricsAddress returns host:port of a worker's metrics, or nothing if it is not known.
func metricsAddress(addresses []string, port string) string {
	if len(addresses) == 0 || port == "" {
		return ""
	}
	address := net.JoinHostPort(addresses[0], port)
	if !wire.ValidAddress("tcp://" + address) {
		return ""
	}
	return address
}

func (c *cluster) deleteSlice(s *endpointSlice) { c.deleteSource(s.Metadata.Name) }

func (c *cluster) deleteSource(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setReady(name, nil)
}

// pod has the fields of a Pod that are read: its containers, their ports and their readiness.
type pod struct {
	kube.Object
	Spec struct {
		Containers []struct {
			Name  string
			Ports []struct {
				Name          string
				ContainerPort uint16
			}
		}
	}
	Status struct {
		PodIP             string
		ContainerStatuses []struct {
			Name  string
			Ready bool
		}
	}
}

func (c *cluster) upsertPod(p *pod) {
	ports := make(map[string]string)
	for _, container := range p.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == systemPort || strings.HasPrefix(port.Name, systemPort+"-") { // system-0, system-1
				ports[container.Name] = strconv.Itoa(int(port.ContainerPort))
			}
		}
	}
	ready := make(map[process]string)
	for _, s := range p.Status.ContainerStatuses {
		if s.Ready && p.Metadata.UID != "" {
			ready[process{p.Metadata.UID, s.Name}] = metricsAddress([]string{p.Status.PodIP}, ports[s.Name])
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setReady(p.Metadata.Name, ready)
}

func (c *cluster) deletePod(p *pod) { c.deleteSource(p.Metadata.Name) }
