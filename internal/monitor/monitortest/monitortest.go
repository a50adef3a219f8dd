// Package monitortest decodes the JSON that package monitor renders, for tests. It does not import
// that package, because the tests of that package use it, too.
package monitortest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
)

// Snapshot has every field of a snapshot. A field that is absent is nil.
type Snapshot struct {
	Namespace string
	Now       int64
	Interval  float64
	Version   string
	Connected map[string]struct {
		On, Refused, Lost bool
		Detail, Why       string
	}
	Leader struct{ Role, Detail string }
	Fleet  struct {
		States                                                  States
		LoadMean, LoadStd, LoadMin, LoadMax                     *float64
		BlocksMean, BlocksStd, Imbalance, HitRate, HitRateTotal *float64
		Waiting                                                 *float64
		WaitingWorkers, WaitingReported                         *int
		EventsPerSecond                                         float64
		Gaps, Drops                                             int
	}
	Endpoints []struct {
		Namespace, Component, Endpoint                                      string
		Workers                                                             int
		States                                                              States
		LoadMean, LoadStd, SlotsMean, SlotsStd, Imbalance, HitRate, Waiting *float64
	}
	Workers  []Worker
	Problems []Problem
	LeftOut  *struct{ Endpoints, Workers, Problems int }
	History  *History
	Looking  *EmptyState
}

// States has the number of workers in each state.
type States struct{ Answering, Silent, Unregistered, Malformed int }

// Worker is one worker at an endpoint, or one data parallel rank.
type Worker struct {
	Key, ID, Hex                                         string
	DP                                                   *int
	Namespace, Component, Endpoint, Source, Model, State string
	KVActive, KVTotal, SlotsActive, SlotsTotal, Waiting  *uint64
	KVUse, HitRate, HitRateTotal, Age                    *float64
}

// Problem is one problem.
type Problem struct {
	ID, Kind, Severity, Title, Detail, Check string
	Since                                    int64
	Workers                                  []string
}

// History has the values of the fleet at each step, the oldest first. A step without a value is
// nil.
type History struct {
	Step                                                                                                                 int
	End                                                                                                                  int64
	LoadMean, LoadStd, LoadMin, LoadMax, Imbalance, HitRate, Waiting, Events, Answering, Silent, Unregistered, Malformed []*float64
}

// EmptyState is what a snapshot has when there are no workers: what is watched, and what may be
// wrong.
type EmptyState struct {
	Namespace, Component, Endpoint, Why string
	Asks, Watches                       []string
	Sees                                []struct {
		Namespace, Component, Endpoint string
		Instances                      int
	}
	Nearest *struct{ Namespace, Component, Endpoint, Why, Command string }
	Mock    string
	Missing []struct {
		System, Detail, Why string
		Lost                bool
	}
}

// Decode reads JSON that must have no field that v lacks.
func Decode(t testing.TB, b []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}

// FormatOptional returns a number as text, or a dash if it is absent.
func FormatOptional[N any](p *N) string {
	if p == nil {
		return "–"
	}
	return fmt.Sprint(*p)
}
