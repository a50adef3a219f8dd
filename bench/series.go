package main

import (
	"bytes"
	"strconv"
)

// page is a page in the Prometheus text format.
type page []byte

// each calls f with each series and its value.
func (p page) each(f func(series, value []byte)) {
	for line := range bytes.Lines(p) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if i := bytes.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			f(line[:i], line[i+1:])
		}
	}
}

// sum is how many series start so, and the sum of their values.
func (p page) sum(start string) (n int, sum float64) {
	p.each(func(series, value []byte) {
		if bytes.HasPrefix(series, []byte(start)) {
			v, _ := strconv.ParseFloat(string(value), 64)
			n++
			sum += v
		}
	})
	return n, sum
}
