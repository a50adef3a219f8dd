package main

import (
	"bytes"
	"strconv"
)

// page is a page in the Prometheus text format.
type exposition []byte

// each calls f with each series and its value.
func (p exposition) each(f func(series, value []byte)) {
	for line := range bytes.Lines(p) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if i := bytes.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			f(line[:i], line[i+1:])
		}
	}
}

// part is the part of the page with the series that start so: they stand together.
func (p exposition) withPrefix(start string) exposition {
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

// sum is how many series start so, and the sum of their values.
func (p exposition) sum(start string) (n int, sum float64) {
	p.withPrefix(start).each(func(_, value []byte) {
		v, _ := strconv.ParseFloat(string(value), 64)
		n++
		sum += v
	})
	return n, sum
}
