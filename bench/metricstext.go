package main

import (
	"bytes"
	"strconv"
)

// metricsText is text in the Prometheus text format.
type metricsText []byte

// each calls f with each series and its value.
func (p metricsText) each(f func(series, value []byte)) {
	for line := range bytes.Lines(p) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if i := bytes.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			f(line[:i], line[i+1:])
		}
	}
}

// withPrefix returns the part of the text whose series begin with start. They are adjacent.
func (p metricsText) withPrefix(start string) metricsText {
	if !bytes.HasPrefix(p, []byte(start)) {
		before := bytes.Index(p, []byte("\n"+start))
		if before < 0 {
			return nil
		}
		p = p[before+1:]
	}
	end := 0
	for bytes.HasPrefix(p[end:], []byte(start)) {
		end += bytes.IndexByte(p[end:], '\n') + 1
	}
	return p[:end]
}

// sum returns how many series begin with start, and the sum of their values.
func (p metricsText) sum(start string) (n int, sum float64) {
	p.withPrefix(start).each(func(_, value []byte) {
		v, _ := strconv.ParseFloat(string(value), 64)
		n++
		sum += v
	})
	return n, sum
}
