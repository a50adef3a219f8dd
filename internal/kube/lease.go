package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Lease is a Lease of coordination.k8s.io/v1: it records which client holds something, and until
// when.
type Lease struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Object
	Spec LeaseSpec `json:"spec"`
}

// LeaseSpec records which client holds the Lease. The times are from the holder's clock, so other
// clients can only see that they change.
type LeaseSpec struct {
	HolderIdentity       string     `json:"holderIdentity"` // empty: no holder
	LeaseDurationSeconds int        `json:"leaseDurationSeconds,omitempty"`
	AcquireTime          *MicroTime `json:"acquireTime,omitempty"`
	RenewTime            *MicroTime `json:"renewTime,omitempty"`
	LeaseTransitions     int        `json:"leaseTransitions,omitempty"`
}

// MicroTime is a time in microseconds, in the format of Leases.
type MicroTime struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t MicroTime) MarshalJSON() ([]byte, error) {
	return json.Marshal(t.UTC().Format("2006-01-02T15:04:05.000000Z07:00"))
}

func leasesPath(namespace string) string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases"
}

// GetLease returns a Lease.
func (c *Client) GetLease(ctx context.Context, namespace, name string) (*Lease, error) {
	return c.lease(ctx, http.MethodGet, leasesPath(namespace)+"/"+name, nil)
}

// CreateLease creates a Lease. If it exists already, the API server responds with 409.
func (c *Client) CreateLease(ctx context.Context, l *Lease) (*Lease, error) {
	return c.lease(ctx, http.MethodPost, leasesPath(l.Metadata.Namespace), l)
}

// UpdateLease replaces a Lease. If it has changed since l was read, the API server responds with
// 409.
func (c *Client) UpdateLease(ctx context.Context, l *Lease) (*Lease, error) {
	return c.lease(ctx, http.MethodPut, leasesPath(l.Metadata.Namespace)+"/"+l.Metadata.Name, l)
}

func (c *Client) lease(ctx context.Context, method, path string, l *Lease) (*Lease, error) {
	var body []byte
	if l != nil {
		l.APIVersion, l.Kind = "coordination.k8s.io/v1", "Lease"
		body, _ = json.Marshal(l) // cannot fail: strings, numbers and times
	}
	response, err := c.do(ctx, method, path, nil, body)
	if err != nil {
		return nil, explainLease(err)
	}
	defer response.Body.Close()
	var lease Lease
	if err := json.NewDecoder(io.LimitReader(response.Body, maxResponse)).Decode(&lease); err != nil {
		return nil, fmt.Errorf("decode the lease: %w", err)
	}
	return &lease, nil
}

// explainLease adds to an error of the API server which permissions a Role must have.
func explainLease(err error) error {
	if IsStatus(err, http.StatusForbidden) {
		return fmt.Errorf("%w (missing in a Role: {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]})", err)
	}
	return err
}
