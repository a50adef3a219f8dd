package main

import (
	"bytes"
	"strconv"
	"strings"
)

// summary is what a soak checks in a scrape.
type summary struct {
	bytes  int
	lines  int                // all series, with those of workers
	series map[string]float64 // values of the series without a worker's label

	ids          map[string]bool    // the ids that have any series
	live         map[string]bool    // the ids that have series other than those of hits
	active       map[string]float64 // active blocks, by id
	isl, overlap map[string]float64 // by id
	attributed   float64            // hit-rate events of all endpoints
}

const (
	islName     = "llm_kv_hit_rate_isl_blocks"
	overlapName = "llm_kv_hit_rate_overlap_blocks"
)

var idStart = []byte(`worker_id="`)

// summarize parses the text of a scrape.
func summarize(p metricsText) summary {
	v := summary{
		bytes: len(p), series: make(map[string]float64), ids: make(map[string]bool), live: make(map[string]bool),
		active: make(map[string]float64), isl: make(map[string]float64), overlap: make(map[string]float64),
	}
	p.each(func(series, value []byte) {
		v.lines++
		number, _ := strconv.ParseFloat(string(value), 64)
		_, label, ofWorker := bytes.Cut(series, idStart)
		if !ofWorker {
			v.add(string(series), number)
			return
		}
		id, _, _ := strings.Cut(string(label), `"`)
		v.ids[id] = true
		name, _, _ := bytes.Cut(series, []byte("{"))
		switch string(name) {
		case islName:
			v.isl[id] += number
		case overlapName:
			v.overlap[id] += number
		case "llm_kv_blocks_active":
			v.active[id] = number
			v.live[id] = true
		default:
			v.live[id] = true
		}
	})
	return v
}

func (v *summary) add(series string, number float64) {
	v.series[series] = number
	if strings.HasPrefix(series, "llm_kv_hit_rate_events_total{") {
		v.attributed += number
	}
}
