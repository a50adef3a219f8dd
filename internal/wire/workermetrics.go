package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"dynamo-metrics/internal/fleet"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	maxLine    = 32 << 10  // bytes of a sample's line
	maxSamples = 512 << 10 // bytes of all samples that are read: more than those of any engine
)

// ErrTooManySamples reports that a worker's metrics have more samples than a worker can
// have.
var ErrTooManySamples = errors.New("worker metrics with too many samples")

// WorkerMetrics are a worker's own metrics about one rank at one endpoint.
type WorkerMetrics struct {
	Namespace string            // empty if the samples have no label for it
	Worker    fleet.Opt[uint64] // absent if the samples have no label for it
	fleet.ScrapedValues
}

// WorkerMetricsFaults counts the samples of one scrape that were not used.
type WorkerMetricsFaults struct {
	Lines   int   // malformed samples of families that are read
	First   error // the error of the first malformed sample
	Invalid int   // impossible values, such as a fraction of 62
}

// WorkerMetricsReader reads workers' own metrics, one scrape after the other. The zero value
// is ready to use.
type WorkerMetricsReader struct {
	Faults WorkerMetricsFaults // of the last scrape

	lines   *bufio.Reader
	samples bytes.Buffer // one sample a line, up to its value
	parser  expfmt.TextParser
}

// Read reads the response to one scrape, and returns the metrics of each rank at each
// endpoint, sorted. A response is long, and joined from several registries, so that the headers
// of a family (HELP, TYPE) may appear twice. Therefore the parser gets only the samples of
// metricFamilies, without headers, and does not know their types. Read skips and counts
// malformed samples. If all are malformed, it returns ErrWorkerMetrics.
func (r *WorkerMetricsReader) Read(response io.Reader) ([]WorkerMetrics, error) {
	if r.lines == nil {
		r.lines = bufio.NewReaderSize(nil, maxLine)
		r.parser = expfmt.NewTextParser(model.LegacyValidation)
	}
	r.lines.Reset(response)
	defer r.lines.Reset(nil)
	r.samples.Reset()
	r.Faults = WorkerMetricsFaults{}
	if err := r.filterSamples(); err != nil {
		return nil, err
	}
	families := r.parseSamples()
	if len(families) == 0 && r.Faults.Lines > 0 {
		return nil, r.Faults.First
	}
	values, invalid := rankMetrics(families)
	r.Faults.Invalid = invalid
	return values, nil
}

// ErrWorkerMetrics reports that a response is not in the Prometheus text format.
var ErrWorkerMetrics = errors.New("decode worker metrics")

// countFault counts a malformed sample.
func (r *WorkerMetricsReader) countFault(err error) {
	r.Faults.Lines++
	if r.Faults.First == nil {
		r.Faults.First = fmt.Errorf("%w: %w", ErrWorkerMetrics, err)
	}
}

// parseSamples parses all samples together. If one of them is malformed, it parses each sample
// alone.
func (r *WorkerMetricsReader) parseSamples() map[string]*dto.MetricFamily {
	families, err := r.parser.TextToMetricFamilies(bytes.NewReader(r.samples.Bytes()))
	if err == nil {
		return families
	}
	families = make(map[string]*dto.MetricFamily)
	for line := range bytes.Lines(r.samples.Bytes()) {
		one, err := r.parser.TextToMetricFamilies(bytes.NewReader(line))
		if err != nil {
			r.countFault(lineError(line, err))
			continue
		}
		for name, f := range one {
			if families[name] == nil {
				families[name] = f
			} else {
				families[name].Metric = append(families[name].Metric, f.Metric...)
			}
		}
	}
	return families
}

// lineError returns the error of a line without the line number that the parser adds.
func lineError(line []byte, err error) error {
	if p := (expfmt.ParseError{}); errors.As(err, &p) {
		err = errors.New(p.Msg)
	}
	return fmt.Errorf("%s: %w", metricName(line), err)
}

// filterSamples copies the samples of metricFamilies to r.samples.
func (r *WorkerMetricsReader) filterSamples() error {
	for {
		line, err := r.lines.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		if isKnownSample(line) {
			if tooLong {
				r.countFault(fmt.Errorf("%s: a sample longer than %d bytes", metricName(line), maxLine))
			} else if sample, malformed := trimAfterValue(line); malformed != nil {
				r.countFault(lineError(line, malformed))
			} else {
				r.samples.Write(sample)
				r.samples.WriteByte('\n')
			}
			if r.samples.Len() > maxSamples {
				return ErrTooManySamples
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.lines.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// isKnownSample reports whether a line is a sample of metricFamilies. The name ends at the
// first byte that cannot belong to it: the parser accepts a value directly after the name.
func isKnownSample(line []byte) bool {
	line = bytes.TrimLeft(line, blanks)
	name := metricName(line)
	if len(bytes.TrimLeft(line[len(name):], "\r\n")) == 0 {
		return false
	}
	_, read := familyIndex[string(name)]
	return read
}

// metricName returns the name at the beginning of a sample.
func metricName(line []byte) []byte {
	line = bytes.TrimLeft(line, blanks)
	if end := bytes.IndexFunc(line, notInMetricName); end >= 0 {
		return line[:end]
	}
	return line
}

func notInMetricName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == ':')
}
