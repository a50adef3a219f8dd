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

// workerMetadata is a DynamoWorkerMetadata: what the process of one worker serves. Its
// maps hold values as etcd has them, by their keys without what those begin with. An
// emptied map is stored as null once; null and a map that is missing are empty.
type workerMetadata struct {
	kube.Object
	Spec struct{ Data *workerData }
}

type workerData struct {
	values         map[string]map[string]json.RawMessage // of the maps in roots, by what their keys begin with
	unknownEntries int                                   // entries of maps of kinds that are not known
}

// roots are what the keys of a resource's maps begin with in etcd.
var keyRoots = map[string]string{"endpoints": wire.InstancesRoot, "model_cards": wire.CardsRoot, "event_channels": wire.ChannelsRoot}

// UnmarshalJSON reads the maps that are known, and counts what is in others, as event_sources
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

// mainContainer is the name that a pod's only process has in container mode.
const mainContainer = "main"

// processOf is the process that a resource is of: its owner says which pod that is, and
// in container mode its name which container (1.1 to 1.6). False if nobody owns it.
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
	if r != nil && (!owned || r.process != p) { // a pod of the same name, made anew
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
		return // listed anew
	}
	r.version = m.Metadata.ResourceVersion
	if m.Spec.Data == nil {
		return // null says nothing (from about 1.3 on Dynamo's own reader has it so)
	}
	for range m.Spec.Data.unknownEntries - r.unknownEntries {
		c.fleet.Stats.CountMessage(stats.OtherKeys)
		c.fleet.Stats.CountRejected(stats.OtherKeys, stats.UnknownKind)
	}
	r.unknownEntries = m.Spec.Data.unknownEntries
	before := len(r.statements)
	r.statements = c.readStatements(m, r.statements, c.limit-c.statementCount)
	c.statementCount += len(r.statements) - before
	c.reconcile(r)
}

// readAll reads what a resource says. What is as it was is not read again, and where a
// value is of no use an older one stays. There is room for so many that are new.
func (c *cluster) readStatements(m *workerMetadata, before map[string]statement, room int) map[string]statement {
	now := make(map[string]statement)
	fresh := 0
	for root, values := range m.Spec.Data.values {
		for rest, value := range values {
			key := root + rest
			s, known := before[key]
			if content := maphash.Bytes(c.seed, value); !known || s.value != content {
				e, ok := c.parse(key, value)
				if !ok && !known {
					continue
				}
				if !known && fresh >= room {
					c.fleet.Stats.CountRefused(limitOf(e.kind))
					continue
				}
				if ok {
					e.owner = m.Metadata.Name
					s.entry = e
				}
				s.value = content
			}
			if !known {
				fresh++
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

// forget takes a resource, and all that it says, away.
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
	c.statementCount -= len(r.statements)
	r.statements = nil
	c.reconcile(r)
}

// listedResources hears that all resources have been put.
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
