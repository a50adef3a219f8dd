package mock

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// The bits of a frame's first byte.
const (
	flagMore    = 1 << 0
	flagLong    = 1 << 1 // the length takes 8 bytes
	flagCommand = 1 << 2
)

const (
	maxFrame         = 4 << 10 // limit of a subscriber's frames, in bytes
	handshakeTimeout = 5 * time.Second

	signature     = "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f"
	nullMechanism = "NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

var errNotZMTP = errors.New("not a ZMTP 3 subscriber with the NULL mechanism")

// shakeHands exchanges the greeting and READY, within handshakeTimeout.
func shakeHands(conn net.Conn, in *bufio.Reader) error {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	greeting := signature + "\x03\x01" + nullMechanism + strings.Repeat("\x00", 32)
	if _, err := io.WriteString(conn, greeting); err != nil {
		return err
	}
	theirs := make([]byte, len(greeting))
	if _, err := io.ReadFull(in, theirs); err != nil {
		return err
	}
	// The padding of the signature is not checked. The minor version does not matter: this
	// socket sends commands only in reply to others.
	mechanism := theirs[len(signature)+2:][:len(nullMechanism)]
	if theirs[0] != 0xff || theirs[9] != 0x7f || theirs[10] < 3 || string(mechanism) != nullMechanism {
		return errNotZMTP
	}
	if _, err := conn.Write(encodeCommand("READY", "\x0bSocket-Type\x00\x00\x00\x03PUB")); err != nil {
		return err
	}
	flags, body, err := readFrame(in)
	if err != nil {
		return err
	}
	if name, _, err := splitCommand(body); err != nil || name != "READY" || flags&flagCommand == 0 {
		return errNotZMTP
	}
	return conn.SetDeadline(time.Time{})
}

// readFrame reads a frame from a subscriber, whose messages have a single frame each.
func readFrame(in *bufio.Reader) (flags byte, body string, err error) {
	if flags, err = in.ReadByte(); err != nil {
		return 0, "", err
	}
	length := make([]byte, 8)
	short := length[7:]
	if flags&flagLong != 0 {
		short = length
	}
	if _, err := io.ReadFull(in, short); err != nil {
		return 0, "", err
	}
	size := binary.BigEndian.Uint64(length)
	if size > maxFrame || flags&^(flagLong|flagCommand) != 0 {
		return 0, "", errNotZMTP
	}
	b := make([]byte, size)
	_, err = io.ReadFull(in, b)
	return flags, string(b), err
}

func splitCommand(body string) (name, data string, err error) {
	if body == "" || int(body[0]) > len(body)-1 {
		return "", "", errNotZMTP
	}
	n := 1 + int(body[0])
	return body[1:n], body[n:], nil
}

func encodeCommand(name, data string) []byte {
	return appendFrame(nil, flagCommand, []byte(string(rune(len(name)))+name+data))
}

func encodeMessage(frames [][]byte) (b []byte) {
	for i, frame := range frames {
		flags := byte(flagMore)
		if i == len(frames)-1 {
			flags = 0
		}
		b = appendFrame(b, flags, frame)
	}
	return b
}

func appendFrame(b []byte, flags byte, body []byte) []byte {
	if len(body) > 255 {
		b = binary.BigEndian.AppendUint64(append(b, flags|flagLong), uint64(len(body)))
	} else {
		b = append(b, flags, byte(len(body)))
	}
	return append(b, body...)
}
