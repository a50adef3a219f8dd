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
	maxLine    = 32 << 10  // a line that is longer is no sample of ours
	maxSamples = 512 << 10 // bytes of the samples that are read: more than any engine has
)

// ErrTooManySamples says that a page has more samples than any worker can have.
var ErrTooManySamples = errors.New("a metrics page with too many samples")

// PageValues are what a worker's page says of one rank at one endpoint.
type WorkerMetrics struct {
	Namespace string            // empty where the page does not say it
	Worker    fleet.Opt[uint64] // likewise
	fleet.ScrapedValues
}

// PageFaults are what of a page could not be read, or cannot be.
type WorkerMetricsFaults struct {
	Lines   int   // samples of families that are read, in which something is wrong
	First   error // what is, in the first of them
	Invalid int   // values that cannot be, as a fraction of 62
}

// PageReader reads workers' own metrics pages, one after the other. The zero PageReader is
// ready.
type WorkerMetricsReader struct {
	Faults WorkerMetricsFaults // of the last page

	lines   *bufio.Reader
	samples bytes.Buffer // a line each, as far as the value
	parser  expfmt.TextParser
}

// Read reads a page: what it says of each rank at each endpoint, sorted. Pages are long,
// and put together from several registries, so that headers may come twice: only the
// samples that are of use go to the parser, and those untyped. A line that cannot be read
// costs itself alone; where none can it is an ErrPage.
func (p *WorkerMetricsReader) Read(page io.Reader) ([]WorkerMetrics, error) {
	if p.lines == nil {
		p.lines = bufio.NewReaderSize(nil, maxLine)
		p.parser = expfmt.NewTextParser(model.LegacyValidation)
	}
	p.lines.Reset(page)
	defer p.lines.Reset(nil)
	p.samples.Reset()
	p.Faults = WorkerMetricsFaults{}
	if err := p.filterSamples(); err != nil {
		return nil, err
	}
	families := p.parseSamples()
	if len(families) == 0 && p.Faults.Lines > 0 {
		return nil, p.Faults.First
	}
	values, invalid := rankMetrics(families)
	p.Faults.Invalid = invalid
	return values, nil
}

// ErrPage says that a page is not in the Prometheus text format.
var ErrWorkerMetrics = errors.New("decode metrics page")

// fault counts a line that cannot be read.
func (p *WorkerMetricsReader) countFault(err error) {
	p.Faults.Lines++
	if p.Faults.First == nil {
		p.Faults.First = fmt.Errorf("%w: %w", ErrWorkerMetrics, err)
	}
}

// parse parses the samples: all at once, and if one of them is wrong each by itself.
func (p *WorkerMetricsReader) parseSamples() map[string]*dto.MetricFamily {
	families, err := p.parser.TextToMetricFamilies(bytes.NewReader(p.samples.Bytes()))
	if err == nil {
		return families
	}
	families = make(map[string]*dto.MetricFamily)
	for line := range bytes.Lines(p.samples.Bytes()) {
		one, err := p.parser.TextToMetricFamilies(bytes.NewReader(line))
		if err != nil {
			p.countFault(lineError(line, err))
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

// lineError is what is wrong with a line, without the number that the parser gives it.
func lineError(line []byte, err error) error {
	if p := (expfmt.ParseError{}); errors.As(err, &p) {
		err = errors.New(p.Msg)
	}
	return fmt.Errorf("%s: %w", metricName(line), err)
}

// sift takes the samples that are of use out of the page.
func (p *WorkerMetricsReader) filterSamples() error {
	for {
		line, err := p.lines.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		if isKnownSample(line) {
			if tooLong {
				p.countFault(fmt.Errorf("%s: a sample longer than %d bytes", metricName(line), maxLine))
			} else if sample, invalid := trimAfterValue(line); invalid != nil {
				p.countFault(lineError(line, invalid))
			} else {
				p.samples.Write(sample)
				p.samples.WriteByte('\n')
			}
			if p.samples.Len() > maxSamples {
				return ErrTooManySamples
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = p.lines.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// isSample reports whether a line is a sample of a family that is read. A name ends where
// it cannot go on: the library reads a value directly behind it, too.
func isKnownSample(line []byte) bool {
	line = bytes.TrimLeft(line, blanks)
	name := metricName(line)
	if len(bytes.TrimLeft(line[len(name):], "\r\n")) == 0 {
		return false
	}
	_, read := familyIndex[string(name)]
	return read
}

// nameOf is the name at the beginning of a sample.
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
