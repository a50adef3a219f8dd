package zmtp

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
)

// publisherHandshake is all that a publisher sends before its first message.
const publisherHandshake = "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01" + nullMechanism +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + readyPUB

func TestFrameReaderLimits(t *testing.T) {
	s := Sub{MaxMessage: 100, MaxFrames: 3}
	full := message("a", strings.Repeat("b", 99))
	for _, test := range []struct{ name, input, want string }{
		{"frame of 4 GiB", "\x02\x00\x00\x00\x01\x00\x00\x00\x00", "message of more than 100 bytes: a frame of 4294967296 after 0"},
		{"frame of 2^63 bytes", "\x02\x80\x00\x00\x00\x00\x00\x00\x00", "a frame of 9223372036854775808 after 0"},
		{"frame of 2^64-1 bytes", "\x02\xff\xff\xff\xff\xff\xff\xff\xff", "a frame of 18446744073709551615 after 0"},
		{"second frame of 2^64-1 bytes", "\x01\x01a\x02\xff\xff\xff\xff\xff\xff\xff\xff", "a frame of 18446744073709551615 after 1"},
		{"an extra byte", "\x00\x65", "message of more than 100 bytes: a frame of 101 after 0"},
		{"an extra byte at the end", message("a", strings.Repeat("b", 98), "cc"), "a frame of 2 after 99"},
		{"a frame too many", message("a", "", "", ""), "message of more than 3 frames"},
		{"endless frames", strings.Repeat("\x01\x00", 1000), "message of more than 3 frames"},
		{"endless bytes", strings.Repeat("\x01\x28"+strings.Repeat("x", 40), 1000), "message of more than 100 bytes: a frame of 40 after 80"},
		{"a command too large", string(appendFrame(nil, flagCommand, "\x04NEWS", strings.Repeat("x", 4096))), "command of 4101 bytes, more than 4096"},
		{"a command of 4 GiB", "\x06\x00\x00\x00\x01\x00\x00\x00\x00", "command of 4294967296 bytes"},
		{"a command in two frames", "\x05\x05\x04PONG", "command that continues in another frame"},
		{"unknown flags", "\x48\x01a", "frame with flags 0x48"},
		{"PING without a time to live", command("PING", "\x00"), "PING without a time to live"},
		{"a command without a name", "\x04\x00", "command without a name"},
		{"end within a length", "\x02\x00\x00", "within a message or command"},
		{"end within a frame", "\x00\x05a", "within a message or command"},
		{"end before a frame's first byte", "\x00\x05", "within a message or command"},
		{"end before a frame's length", "\x00", "within a message or command"},
		{"end within a message", "\x01\x01a", "within a message or command"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := replay(t, s, &replayConn{Reader: strings.NewReader(publisherHandshake + full + test.input)})
			o.wantError(t, test.want)
			o.wantMessages(t, fmt.Sprintf("[%q][%q]", "a", strings.Repeat("b", 99)))
		})
	}
}

func TestFrameReaderDefaultLimits(t *testing.T) {
	most := strings.Repeat("b", defaultMaxMessage)
	for input, want := range map[string]string{
		message(most) + "\x02\x00\x00\x00\x00\x00\x10\x00\x01":          "message of more than 1048576 bytes: a frame of 1048577 after 0",
		message(make([]string, 64)...) + message(make([]string, 65)...): "message of more than 64 frames",
	} {
		o := replay(t, Sub{}, &replayConn{Reader: strings.NewReader(publisherHandshake + input)})
		o.wantError(t, want)
		if len(o.messages) != 1 {
			t.Errorf("delivered %d messages, want the one within the limits", len(o.messages))
		}
	}
}

func newReader(in io.Reader) *frameReader {
	return &frameReader{in: bufio.NewReader(in), maxBytes: defaultMaxMessage, maxFrames: defaultMaxFrames, onFrameStart: func() {}, onFrameEnd: func() {}}
}

// Thousands of publishers may each announce a mebibyte and send nothing.
func TestFrameReaderAllocatesForReceivedBytesOnly(t *testing.T) {
	r := newReader(strings.NewReader("\x02\x00\x00\x00\x00\x00\x10\x00\x00and then nothing"))
	if _, err := r.next(); err != io.ErrUnexpectedEOF {
		t.Errorf("got error %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if cap(r.body) > 128<<10 {
		t.Errorf("allocated %d bytes for 16", cap(r.body))
	}
}

func TestPeerBufferIsSmall(t *testing.T) {
	if n := newPeer(&Sub{}, nil).in.Size(); n != 1024 {
		t.Errorf("the buffer has %d bytes, want 1 KiB", n)
	}
}

func TestFrameReaderReleasesLargeBuffers(t *testing.T) {
	r := newReader(strings.NewReader(message(strings.Repeat("x", defaultMaxMessage)) + message("a")))
	for _, want := range []int{defaultMaxMessage, 1} {
		if _, err := r.next(); err != nil || len(r.frames) != 1 || len(r.frames[0]) != want {
			t.Fatalf("got %d frames, error %v; want one of %d bytes", len(r.frames), err, want)
		}
	}
	if cap(r.body) > 128<<10 {
		t.Errorf("kept %d bytes, want at most 128 KiB", cap(r.body))
	}
}

// An append to one frame must not overwrite the next.
func TestFrameReaderCapsFrames(t *testing.T) {
	r := newReader(strings.NewReader(message("a", "b")))
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	_ = append(r.frames[0], 'x')
	if string(r.frames[1]) != "b" {
		t.Errorf("got %q, want %q", r.frames[1], "b")
	}
}

func TestSubDeliversWithoutAllocating(t *testing.T) {
	const messages = 10_000
	one := message("kv_metrics", "publisher", "sequence", strings.Repeat("x", 250))
	input := publisherHandshake + strings.Repeat(one+command("PING", "\x00\x00context"), messages)
	s := Sub{Address: testAddress, Topics: []string{"a"}}
	got := 0
	allocs := testing.AllocsPerRun(1, func() {
		c := &replayConn{Reader: strings.NewReader(input)}
		s.OnConnected = func() { c.sent.Reset() }
		c.sent.Grow(1 << 20)
		replayInto(&s, c, func([][]byte) { got++ })
	})
	if got != 2*messages {
		t.Errorf("delivered %d messages, want %d", got, 2*messages)
	}
	if allocs > 100 {
		t.Errorf("%v allocations for %d messages and pings, want only those of the connection", allocs, messages)
	}
}
