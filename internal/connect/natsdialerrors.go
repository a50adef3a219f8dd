package connect

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// dials are the errors of one round over the addresses of all NATS servers. The lock is their own,
// since nats.go calls failed while it holds the lock of its connection.
type dialErrors struct {
	mu  sync.Mutex
	all []error
}

// mostDials is how many of these errors are kept.
const maxDialErrors = 8

// failed keeps the error of an address that could not be reached.
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

// why is the reason for which a round has led to no connection. The error of nats.go is that of
// the last server alone, and where that refuses connections it only says that there is none.
func (d *dialErrors) cause(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.all)
	if err != nil && !errors.Is(err, nats.ErrNoServers) && !slices.ContainsFunc(all, func(of error) bool { return errors.Is(err, of) }) {
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
