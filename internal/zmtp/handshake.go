package zmtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// signature is the part of a greeting that identifies the protocol. The bytes between
	// its first and last one are padding.
	signature = "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f"

	nullMechanism = "NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

	// greeting is all that a subscriber sends before it receives anything: version 3.1, no
	// security, not a server.
	greeting = signature + "\x03\x01" + nullMechanism + "\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

	readyCommand = "\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
)

// shakeHands does the whole handshake within one deadline.
func (p *peer) shakeHands() error {
	err := p.exchangeHandshake()
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		// The peer closes the connection before it sends the part of its greeting that would show
		// which of the two it requires.
		return fmt.Errorf("closed by the peer, as libzmq does if it requires another socket type or security mechanism: %w", err)
	}
	return err
}

func (p *peer) exchangeHandshake() error {
	if err := p.conn.SetDeadline(time.Now().Add(p.handshakeTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(p.conn, greeting); err != nil {
		return err
	}
	minor, err := readGreeting(p.in)
	if err != nil {
		return err
	}
	if _, err := p.conn.Write(appendFrame(p.out[:0], flagCommand, readyCommand)); err != nil {
		return err
	}
	isCommand, err := p.reader.next()
	if err != nil {
		return err
	}
	if !isCommand {
		return errors.New("a message before READY")
	}
	if err := parseReady(p.reader.command); err != nil {
		return err
	}
	p.isZMTP31 = minor > 0
	p.handshakeDone = true
	return p.conn.SetDeadline(time.Time{})
}

// readGreeting reads in steps, each no longer than what every version sends without
// waiting. A publisher of ZMTP 2.0 waits for the subscriber after its version.
func readGreeting(in io.Reader) (minor byte, err error) {
	var b [len(greeting)]byte
	version, mechanism := b[len(signature):len(signature)+2], b[len(signature)+2:len(signature)+2+len(nullMechanism)]
	if _, err := io.ReadFull(in, b[:1]); err != nil {
		return 0, err
	}
	if b[0] != signature[0] {
		return 0, fmt.Errorf("greeting begins with %#02x: not ZMTP 2.0 or later", b[0])
	}
	if _, err := io.ReadFull(in, b[1:len(signature)+1]); err != nil {
		return 0, err
	}
	if b[len(signature)-1] != signature[len(signature)-1] {
		return 0, fmt.Errorf("greeting begins with % x: not ZMTP 2.0 or later", b[:len(signature)])
	}
	// A peer of a later version must be accepted. It then uses this version.
	if version[0] < 3 {
		return 0, errors.New("the peer's ZMTP version is below 3.0")
	}
	if _, err := io.ReadFull(in, b[len(signature)+1:]); err != nil {
		return 0, err
	}
	if string(mechanism) != nullMechanism {
		return 0, fmt.Errorf("the peer requires the security mechanism %q; only NULL is supported", bytes.TrimRight(mechanism, "\x00"))
	}
	if version[0] > 3 {
		return 1, nil
	}
	return version[1], nil
}

// parseReady returns an error unless the command is the READY of a publisher.
func parseReady(command []byte) error {
	name, data, err := splitCommand(command)
	if err != nil {
		return err
	}
	switch string(name) {
	case "READY":
	case "ERROR":
		return parseError(data)
	default:
		return fmt.Errorf("command %q instead of READY", name)
	}
	kind := ""
	for len(data) > 0 {
		var key, value []byte
		if key, value, data, err = splitProperty(data); err != nil {
			return err
		}
		if strings.EqualFold(string(key), "Socket-Type") {
			kind = string(value)
		}
	}
	if kind != "PUB" && kind != "XPUB" {
		return fmt.Errorf("the peer's socket is a %.20q; want PUB or XPUB", kind)
	}
	return nil
}

// parseError returns the reason in a publisher's ERROR command as an error.
func parseError(data []byte) error {
	if len(data) == 0 || int(data[0]) > len(data)-1 {
		return errors.New("the peer sent an ERROR with a truncated reason")
	}
	return fmt.Errorf("the peer sent an ERROR: %q", data[1:1+int(data[0])])
}

func splitCommand(command []byte) (name, data []byte, err error) {
	if len(command) == 0 || command[0] == 0 || int(command[0]) > len(command)-1 {
		return nil, nil, errors.New("command without a name")
	}
	n := 1 + int(command[0])
	return command[1:n], command[n:], nil
}

func splitProperty(data []byte) (key, value, rest []byte, err error) {
	n := 1 + int(data[0])
	if n == 1 || len(data) < n+4 {
		return nil, nil, nil, errors.New("READY with a truncated property")
	}
	size := binary.BigEndian.Uint32(data[n:])
	key, rest = data[1:n], data[n+4:]
	if uint64(size) > uint64(len(rest)) {
		return nil, nil, nil, errors.New("READY with a truncated property")
	}
	return key, rest[:size], rest[size:], nil
}
