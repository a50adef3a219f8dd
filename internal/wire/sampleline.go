package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

const (
	blanks   = " \t"     // separate the parts of a sample
	lineEnds = " \t\r\n" // are trimmed from a line
)

// trimAfterValue returns a sample up to its value. After the value there may be blanks, a
// timestamp, which OpenMetrics writes in seconds with a fraction, and an exemplar. Workers
// serve either format at the same path, and the parser supports the text format only.
func trimAfterValue(line []byte) ([]byte, error) {
	line = bytes.Trim(line, lineEnds)
	at := len(metricName(line))
	at += leadingBlanks(line[at:])
	if at < len(line) && line[at] == '{' {
		end, err := labelsEnd(line[at:])
		if err != nil {
			return nil, err
		}
		at += end
		at += leadingBlanks(line[at:])
	}
	end := bytes.IndexAny(line[at:], blanks)
	if end < 0 {
		return line, nil
	}
	rest := line[at+end:]
	rest, exemplar, has := bytes.Cut(rest, []byte("#"))
	if has && !bytes.HasPrefix(bytes.TrimLeft(exemplar, blanks), []byte("{")) {
		return nil, errors.New("the text after # is not an exemplar")
	}
	if timestamp := bytes.Trim(rest, blanks); len(timestamp) > 0 {
		if _, err := strconv.ParseFloat(string(timestamp), 64); err != nil {
			return nil, fmt.Errorf("expected a timestamp after the value, got %q", timestamp)
		}
	}
	return line[:at+end], nil
}

func leadingBlanks(b []byte) int { return len(b) - len(bytes.TrimLeft(b, blanks)) }

// maxLabels is the limit of the labels of a sample. The parser's time grows with the square
// of their number.
const maxLabels = 64

// labelsEnd returns the position after the brace that closes the labels at the beginning of
// b. A brace inside a quoted value does not count.
func labelsEnd(b []byte) (end int, err error) {
	quoted, labels := false, 0
	for i := 0; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '=' && !quoted:
			if labels++; labels > maxLabels {
				return 0, fmt.Errorf("more than %d labels", maxLabels)
			}
		case b[i] == '}' && !quoted:
			return i + 1, nil
		}
	}
	return 0, errors.New("the labels do not end")
}
