package connect

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// dialErrors collects the errors of one round of attempts at the addresses of all NATS servers.
// It has its own lock because nats.go calls add while it holds the lock of its connection.
type dialErrors struct {
	mu  sync.Mutex
	all []error
}

// maxDialErrors is how many of these errors are kept.
const maxDialErrors = 8

// add records the error of an address that could not be connected to.
func (d *dialErrors) add(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.all) < maxDialErrors {
		d.all = append(d.all, err)
	}
}

// clear begins a new round.
func (d *dialErrors) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = nil
}

// cause returns why a round has made no connection. The error of nats.go is only that of the
// last server, or, if that server refuses connections, only that no server is available.
func (d *dialErrors) cause(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.all)
	if err != nil && !errors.Is(err, nats.ErrNoServers) && !slices.ContainsFunc(all, func(e error) bool { return errors.Is(err, e) }) {
		all = append(all, err)
	}
	switch len(all) {
	case 0:
		return err
	case 1:
		return all[0]
	}
	var texts []string
	for _, one := range all {
		texts = append(texts, one.Error())
	}
	return errors.New(strings.Join(slices.Compact(texts), "; "))
}
