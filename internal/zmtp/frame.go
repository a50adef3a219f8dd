package zmtp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The bits of a frame's first byte. The others must be zero.
const (
	flagMore    = 1 << 0
	flagLong    = 1 << 1 // the length takes 8 bytes
	flagCommand = 1 << 2
)

const (
	maxCommand  = 4 << 10   // READY is the largest command: libzmq's has 25 bytes, more with an application's metadata
	readChunk   = 64 << 10  // memory is allocated for received bytes, not for an announced size
	maxKeptBody = 128 << 10 // a larger buffer is not kept for the next message; messages up to 64 KiB need less
)

// appendFrame appends a frame whose body is the concatenation of parts.
func appendFrame(b []byte, flags byte, parts ...string) []byte {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	if size > 255 {
		b = append(b, flags|flagLong)
		b = binary.BigEndian.AppendUint64(b, uint64(size))
	} else {
		b = append(b, flags, byte(size))
	}
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

// frameReader splits a stream into commands and messages.
type frameReader struct {
	in        *bufio.Reader
	maxBytes  int
	maxFrames int

	onFrameStart func() // called after the first byte of a frame
	onFrameEnd   func() // called after the last byte of a frame

	command []byte
	frames  [][]byte

	inMessage bool   // the last frame of a message has not arrived yet
	body      []byte // the frames of the message, concatenated
	frameEnds []int  // positions in body where the frames end
}

// next reads the next command or message into command or frames, which are valid until the
// next call. Publishers also send commands between the frames of a message.
func (r *frameReader) next() (isCommand bool, err error) {
	if !r.inMessage {
		r.reset()
	}
	for {
		flags, size, err := r.readHeader()
		if err != nil {
			return false, err
		}
		if flags&flagCommand != 0 {
			return true, r.readCommand(flags, size)
		}
		if err := r.readFrame(size); err != nil {
			return false, err
		}
		r.inMessage = flags&flagMore != 0
		r.onFrameEnd()
		if !r.inMessage {
			r.splitFrames()
			return false, nil
		}
	}
}

func (r *frameReader) readHeader() (flags byte, size uint64, err error) {
	flags, err = r.in.ReadByte()
	if err != nil {
		return 0, 0, r.unexpectedEOF(err, r.inMessage)
	}
	r.onFrameStart()
	if flags&^(flagMore|flagLong|flagCommand) != 0 {
		return 0, 0, fmt.Errorf("frame with flags %#02x", flags)
	}
	if flags&flagLong == 0 {
		short, err := r.in.ReadByte()
		return flags, uint64(short), r.unexpectedEOF(err, true)
	}
	var long [8]byte
	if _, err := io.ReadFull(r.in, long[:]); err != nil {
		return 0, 0, r.unexpectedEOF(err, true)
	}
	return flags, binary.BigEndian.Uint64(long[:]), nil
}

func (r *frameReader) readCommand(flags byte, size uint64) error {
	if flags&flagMore != 0 {
		return errors.New("command that continues in another frame")
	}
	if size > maxCommand {
		return fmt.Errorf("command of %d bytes, more than %d", size, maxCommand)
	}
	r.command = slices.Grow(r.command[:0], int(size))[:size]
	if _, err := io.ReadFull(r.in, r.command); err != nil {
		return r.unexpectedEOF(err, true)
	}
	r.onFrameEnd()
	return nil
}

// readFrame appends a frame's body to the message.
func (r *frameReader) readFrame(size uint64) error {
	if len(r.frameEnds) == r.maxFrames {
		return fmt.Errorf("message of more than %d frames", r.maxFrames)
	}
	if size > uint64(r.maxBytes-len(r.body)) {
		return fmt.Errorf("message of more than %d bytes: a frame of %d after %d", r.maxBytes, size, len(r.body))
	}
	for left := int(size); left > 0; {
		n := min(left, readChunk)
		at := len(r.body)
		r.body = slices.Grow(r.body, n)[:at+n]
		if _, err := io.ReadFull(r.in, r.body[at:]); err != nil {
			return r.unexpectedEOF(err, true)
		}
		left -= n
	}
	r.frameEnds = append(r.frameEnds, len(r.body))
	return nil
}

// splitFrames splits the body into frames. The capacity of each frame is its length, so
// that an append to it does not overwrite the next one.
func (r *frameReader) splitFrames() {
	start := 0
	for _, end := range r.frameEnds {
		r.frames = append(r.frames, r.body[start:end:end])
		start = end
	}
}

func (r *frameReader) reset() {
	r.body, r.frameEnds, r.frames = r.body[:0], r.frameEnds[:0], r.frames[:0]
	if cap(r.body) > maxKeptBody {
		r.body, r.frames = nil, nil
	}
}

// unexpectedEOF replaces io.EOF with io.ErrUnexpectedEOF if a frame or message has begun.
func (r *frameReader) unexpectedEOF(err error, begun bool) error {
	if err == io.EOF && begun {
		return io.ErrUnexpectedEOF
	}
	return err
}
