package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// What may stand where in a sample.
const (
	blanks   = " \t"
	lineEnds = " \t\r\n"
)

// upToValue is a sample without what may stand behind its value: blanks, a timestamp, which
// OpenMetrics gives in seconds with a fraction, and an exemplar. Pages of both formats come
// under the same name, and the parser knows the older one alone.
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
		return nil, errors.New("what stands behind # is no exemplar")
	}
	if timestamp := bytes.Trim(rest, blanks); len(timestamp) > 0 {
		if _, err := strconv.ParseFloat(string(timestamp), 64); err != nil {
			return nil, fmt.Errorf("expected a timestamp behind the value, got %q", timestamp)
		}
	}
	return line[:at+end], nil
}

func leadingBlanks(b []byte) int { return len(b) - len(bytes.TrimLeft(b, blanks)) }

// maxLabels bounds the labels of a sample: what the parser takes grows with their square.
const maxLabels = 64

// afterLabels is where the labels end that begin with a brace. One in a quoted value ends nothing.
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
