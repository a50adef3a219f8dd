package discovery

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strings"

	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// workerMetadata is a DynamoWorkerMetadata: what one worker process serves. Its maps hold the
// same values as etcd, by the same keys without their roots. Null and a missing map both mean that
// the map is empty: a map that was emptied is stored as null.
type workerMetadata struct {
	kube.Object
	Spec struct{ Data *workerData }
}

type workerData struct {
	values         map[string]map[string]json.RawMessage // the maps in keyRoots, by root
	unknownEntries int                                   // in maps of unknown kinds
}

// keyRoots are the roots in etcd of the keys of a resource's maps.
var keyRoots = map[string]string{"endpoints": wire.InstancesRoot, "model_cards": wire.CardsRoot, "event_channels": wire.ChannelsRoot}

// UnmarshalJSON reads the known maps, and counts the entries of other maps, such as event_sources
// (from 1.4 on).
func (d *workerData) UnmarshalJSON(b []byte) error {
	var maps map[string]json.RawMessage
	if err := json.Unmarshal(b, &maps); err != nil {
		return err
	}
	d.values = make(map[string]map[string]json.RawMessage)
	for name, content := range maps {
		var values map[string]json.RawMessage
		root, known := keyRoots[name]
		if err := json.Unmarshal(content, &values); err != nil && known {
			return fmt.Errorf("%s: %w", name, err)
		}
		if known {
			d.values[root] = values
		} else {
			d.unknownEntries += len(values)
		}
	}
	return nil
}

// mainContainer is the name of a pod's only process in container mode.
const mainContainer = "main"

// processOf returns the process that wrote a resource. The owner reference names the pod. In
// container mode, the resource's name has the container (1.1 to 1.6). processOf returns false if no
// pod owns the resource.
func (c *cluster) processOf(m *kube.Metadata) (process, bool) {
	for _, owner := range m.OwnerReferences {
		if owner.Kind != "Pod" || owner.UID == "" {
			continue
		}
		if !c.containers {
			return process{pod: owner.UID}, true
		}
		container, isOne := strings.CutPrefix(m.Name, owner.Name+"-")
		if !isOne {
			container = mainContainer
		}
		return process{owner.UID, container}, true
	}
	return process{}, false
}

func (c *cluster) upsertResource(m *workerMetadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, owned := c.processOf(&m.Metadata)
	r := c.resources[m.Metadata.Name]
	if r != nil && (!owned || r.process != p) { // a new pod of the same name
		c.forget(m.Metadata.Name)
		r = nil
	}
	if !owned {
		return
	}
	if r == nil {
		if len(c.resources) >= c.limit {
			c.fleet.Stats.CountRefused(stats.AttachmentLimit)
			return
		}
		r = &resource{process: p}
		c.resources[m.Metadata.Name] = r
		if c.owned[p] == nil {
			c.owned[p] = make(map[*resource]bool)
		}
		c.owned[p][r] = true
	}
	if m.Metadata.ResourceVersion != "" && m.Metadata.ResourceVersion == r.version {
		return // unchanged in a new listing
	}
	r.version = m.Metadata.ResourceVersion
	if m.Spec.Data == nil {
		return // null changes nothing (as in Dynamo's own reader from about 1.3 on)
	}
	for range m.Spec.Data.unknownEntries - r.unknownEntries {
		c.fleet.Stats.CountMessage(stats.OtherKeys)
		c.fleet.Stats.CountRejected(stats.OtherKeys, stats.UnknownKind)
	}
	r.unknownEntries = m.Spec.Data.unknownEntries
	before := len(r.entries)
	r.entries = c.decodeEntries(m, r.entries, c.limit-c.entryCount)
	c.entryCount += len(r.entries) - before
	c.reconcile(r)
}

// decodeEntries decodes the entries of a resource. It does not decode unchanged entries again,
// and keeps the last good value of an entry that cannot be decoded. It takes at most maxNew new
// entries.
func (c *cluster) decodeEntries(m *workerMetadata, before map[string]resourceEntry, maxNew int) map[string]resourceEntry {
	now := make(map[string]resourceEntry)
	added := 0
	for root, values := range m.Spec.Data.values {
		for rest, value := range values {
			key := root + rest
			s, known := before[key]
			if content := maphash.Bytes(c.seed, value); !known || s.hash != content {
				e, ok := c.parse(key, value)
				if !ok && !known {
					continue
				}
				if !known && added >= maxNew {
					c.fleet.Stats.CountRefused(limitOf(e.kind))
					continue
				}
				if ok {
					e.owner = m.Metadata.Name
					s.entry = e
				}
				s.hash = content
			}
			if !known {
				added++
			}
			now[key] = s
		}
	}
	return now
}

func (c *cluster) deleteResource(m *workerMetadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(m.Metadata.Name)
}

// forget removes a resource and all its entries.
func (c *cluster) forget(name string) {
	r := c.resources[name]
	if r == nil {
		return
	}
	delete(c.resources, name)
	delete(c.owned[r.process], r)
	if len(c.owned[r.process]) == 0 {
		delete(c.owned, r.process)
	}
	c.entryCount -= len(r.entries)
	r.entries = nil
	c.reconcile(r)
}

// onResourcesSynced removes the resources that are not among the names of a complete list.
func (c *cluster) onResourcesSynced(names map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.resources {
		if !names[name] {
			c.forget(name)
		}
	}
	c.markListed(0)
}
