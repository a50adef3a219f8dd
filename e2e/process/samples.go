package process

import "strings"

// ParseSamples returns the values in text in the Prometheus text format, as they are
// written, by series.
func ParseSamples(text string) map[string]string {
	p := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			p[line[:i]] = line[i+1:]
		}
	}
	return p
}
