package zmtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

var fuzzLimits = Sub{Topics: []string{"a"}, MaxMessage: 300, MaxFrames: 4}

// FuzzPeer checks that any input, in pieces of any size, ends with an error and delivers
// only messages within the limits, and that the subscriber sends no more than a handshake, a
// subscription and one reply for each ping.
func FuzzPeer(f *testing.F) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		f.Fatalf("files of recordings: %v, %v", files, err)
	}
	for _, file := range files {
		f.Add([]byte(readRecording(f, file)), 0)
	}
	f.Add([]byte(greetingOf(3, 1)+command("ERROR", "\x02no")), 1)
	f.Add([]byte(greetingOf(3, 0)+readyXPUB+message("a", "", strings.Repeat("b", 280))), 3)
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), 0)
	f.Fuzz(func(t *testing.T, input []byte, step int) {
		c := &replayConn{Reader: bytes.NewReader(input), step: step}
		err := replayInto(withAddress(fuzzLimits), c, func(frames [][]byte) { checkFuzzLimits(t, frames) })
		if err == nil {
			t.Error("got no error, want at least the end of the input")
		}
		pings := bytes.Count(input, []byte("PING"))
		if most := len(wantSent31) + pings*(len(emptyPong)+maxEcho); c.sent.Len() > most {
			t.Errorf("sent %d bytes for %d pings, want at most %d", c.sent.Len(), pings, most)
		}
	})
}

// FuzzTraffic checks that the messages after a valid handshake are those of a simple
// decoder, which reads the whole input at once.
func FuzzTraffic(f *testing.F) {
	f.Add([]byte(message("a", "b")+command("PING", "\x00\x00x")+message("", "", "", "")), 0)
	f.Add([]byte("\x01\x01a"+command("PONG", "")+"\x02\x00\x00\x00\x00\x00\x00\x01\x00"+strings.Repeat("x", 256)), 1)
	f.Add([]byte("\x02\xff\xff\xff\xff\xff\xff\xff\xffx"), 0)
	f.Add([]byte("\x01\x00\x01\x00\x01\x00\x01\x00\x01\x00"), 2)
	f.Add([]byte(command("ERROR", "\x03bye")+"\x04\x01\x00\x08\x00"), 5)
	f.Fuzz(func(t *testing.T, input []byte, step int) {
		var got []string
		c := &replayConn{Reader: io.MultiReader(strings.NewReader(publisherHandshake), bytes.NewReader(input)), step: step}
		err := replayInto(withAddress(fuzzLimits), c, func(frames [][]byte) {
			checkFuzzLimits(t, frames)
			got = append(got, formatFrames(frames))
		})
		want, wantErr := decodeSlowly(input)
		if strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("delivered %q, want %q", got, want)
		}
		if errors.Is(err, io.EOF) != (wantErr == nil) {
			t.Errorf("got error %v, want %v", err, wantErr)
		}
	})
}

func withAddress(s Sub) *Sub {
	s.Address = testAddress
	return &s
}

func checkFuzzLimits(t *testing.T, frames [][]byte) {
	total := 0
	for _, frame := range frames {
		total += len(frame)
	}
	if len(frames) == 0 || len(frames) > fuzzLimits.MaxFrames || total > fuzzLimits.MaxMessage {
		t.Errorf("delivered %d frames of %d bytes together", len(frames), total)
	}
}

// decodeSlowly is the oracle: it returns the messages in b, and the error after them.
func decodeSlowly(b []byte) (messages []string, err error) {
	var frames [][]byte
	total := 0
	for len(b) > 0 {
		flags := b[0]
		head := 2
		if flags&2 != 0 {
			head = 9
		}
		if flags > 7 || len(b) < head {
			return messages, errors.New("bad head")
		}
		size := uint64(b[1])
		if head == 9 {
			size = binary.BigEndian.Uint64(b[1:])
		}
		b = b[head:]
		if flags&4 != 0 {
			if flags&1 != 0 || size > maxCommand || size > uint64(len(b)) || !isValidCommand(b[:size]) {
				return messages, errors.New("bad command")
			}
			b = b[size:]
			continue
		}
		if size > uint64(len(b)) || total+int(size) > fuzzLimits.MaxMessage || len(frames) == fuzzLimits.MaxFrames {
			return messages, errors.New("bad frame")
		}
		frames, total, b = append(frames, b[:size]), total+int(size), b[size:]
		if flags&1 == 0 {
			messages = append(messages, formatFrames(frames))
			frames, total = nil, 0
		}
	}
	if frames != nil {
		return messages, fmt.Errorf("%d frames of a message", len(frames))
	}
	return messages, nil
}

func isValidCommand(b []byte) bool {
	if len(b) < 2 || b[0] == 0 || int(b[0]) > len(b)-1 {
		return false
	}
	name, data := string(b[1:1+b[0]]), b[1+b[0]:]
	return name != "ERROR" && (name != "PING" || len(data) >= 2)
}
