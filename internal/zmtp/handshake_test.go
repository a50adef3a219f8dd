package zmtp

import (
	"strings"
	"testing"
)

func property(name, value string) string {
	return string(rune(len(name))) + name + "\x00\x00\x00" + string(rune(len(value))) + value
}

func TestHandshakeRejectsOtherPeers(t *testing.T) {
	greeted := greetingOf(3, 1)
	for _, test := range []struct{ name, input, want string }{
		{"nothing", "", "handshake: closed by the peer, as libzmq does if it requires another socket type or security mechanism: EOF"},
		{"half a signature", greeted[:5], "security mechanism: unexpected EOF"},
		{"half a greeting", greeted[:40], "security mechanism: unexpected EOF"},
		{"a version", greeted[:11], "security mechanism: EOF"},
		{"half a READY", greeted + readyPUB[:9], "security mechanism: unexpected EOF"},
		{"no READY", greeted, "handshake: closed by the peer, as libzmq does if it requires another socket type or security mechanism: EOF"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", "greeting begins with 0x48"},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x46", "greeting begins with 0x15"},
		{"ZMTP 1.0", "\x01\x00", "greeting begins with 0x01"},
		{"ZMTP 1.0 with a long identity", "\xff\x00\x00\x00\x00\x00\x00\x01\x01\x00ident", "greeting begins with ff 00"},
		// A peer of 2.0 sends no more before it has the subscriber's version.
		{"ZMTP 2.0", "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x01", "the peer's ZMTP version is below 3.0"},
		{"CURVE", strings.Replace(greeted, "NULL\x00", "CURVE", 1), `the security mechanism "CURVE"`},
		{"NULL with more letters", strings.Replace(greeted, "NULL\x00", "NULLS", 1), `the security mechanism "NULLS"`},
		{"no mechanism", strings.Replace(greeted, "NULL", "\x00\x00\x00\x00", 1), `the security mechanism ""`},
		{"wrong socket", greeted + command("READY", property("Socket-Type", "PUSH")), `the peer's socket is a "PUSH"`},
		{"a subscriber's socket", greeted + command("READY", property("Socket-Type", "SUB")), `the peer's socket is a "SUB"`},
		{"a long socket", greeted + command("READY", property("Socket-Type", strings.Repeat("P", 120))), `is a "PPPPPPPPPPPPPPPPPPPP";`},
		{"no socket", greeted + command("READY", ""), `the peer's socket is a ""`},
		{"an ERROR", greeted + command("ERROR", "\x10Invalid client!!"), `the peer sent an ERROR: "Invalid client!!"`},
		{"an ERROR without a reason", greeted + command("ERROR", ""), "the peer sent an ERROR with a truncated reason"},
		{"a truncated ERROR", greeted + command("ERROR", "\x09no"), "the peer sent an ERROR with a truncated reason"},
		{"another command", greeted + command("HELLO", "you"), `command "HELLO" instead of READY`},
		{"a message", greeted + message("a", "b"), "a message before READY"},
		{"a nameless command", greeted + "\x04\x00", "command without a name"},
		{"an empty name", greeted + "\x04\x02\x00\x00", "command without a name"},
		{"a truncated name", greeted + "\x04\x03\x05RE", "command without a name"},
		{"property without a name", greeted + command("READY", "\x00\x00\x00\x00\x00"), "READY with a truncated property"},
		{"property without a length", greeted + command("READY", "\x01X\x00\x00"), "READY with a truncated property"},
		{"a truncated property", greeted + command("READY", "\x01X\x00\x00\x00\x02x"), "READY with a truncated property"},
		{"property of 4 GiB", greeted + command("READY", "\x01X\xff\xff\xff\xffx"), "READY with a truncated property"},
		{"large READY", greeted + command("READY", strings.Repeat("x", maxCommand)), "command of 4102 bytes, more than 4096"},
		{"READY of 2^63 bytes", greeted + "\x06\x80\x00\x00\x00\x00\x00\x00\x00", "command of 9223372036854775808 bytes"},
		{"READY in two frames", greeted + "\x05" + readyPUB[1:], "command that continues"},
		{"unknown flags", greeted + "\x0c" + readyPUB[1:], "frame with flags 0x0c"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := replay(t, Sub{}, &replayConn{Reader: strings.NewReader(test.input)})
			o.wantError(t, test.want)
			o.wantError(t, "handshake: ")
			o.wantMessages(t)
			if o.connected != 0 {
				t.Errorf("connected %d times, want never", o.connected)
			}
		})
	}
}

func TestHandshakeAcceptsMoreProperties(t *testing.T) {
	for _, ready := range []string{
		command("READY", property("X-App", "")+property("socket-TYPE", "XPUB")+property("Identity", "\x00\xff")),
		command("READY", property("Socket-Type", "PUB")+property("X-App", strings.Repeat("x", 100))+property("X-More", strings.Repeat("x", 120))),
	} {
		o := replay(t, Sub{}, &replayConn{Reader: strings.NewReader(greetingOf(3, 0) + ready + message("a"))})
		o.wantMessages(t, `["a"]`)
	}
}

func TestHostPort(t *testing.T) {
	for endpoint, want := range map[string]string{
		"tcp://192.0.2.2:34197":        "192.0.2.2:34197",
		"tcp://broker.dynamo:5555":     "broker.dynamo:5555",
		"tcp://[2001:db8::1]:5555":     "[2001:db8::1]:5555",
		"tcp://[fe80::1%eth0]:5555":    "[fe80::1%eth0]:5555",
		"tcp://*:5555":                 `address "tcp://*:5555": is for binding; want a host to connect to`,
		"tcp://:5555":                  `address "tcp://:5555": is for binding; want a host to connect to`,
		"tcp://192.0.2.2":              `address "tcp://192.0.2.2": want tcp://host:port: address 192.0.2.2: missing port in address`,
		"tcp://2001:db8::1:5555":       `address "tcp://2001:db8::1:5555": want tcp://host:port: address 2001:db8::1:5555: too many colons in address`,
		"tcp://192.0.2.2:*":            `address "tcp://192.0.2.2:*": want a port from 1 to 65535`,
		"tcp://192.0.2.2:0":            `address "tcp://192.0.2.2:0": want a port from 1 to 65535`,
		"tcp://192.0.2.2:65536":        `address "tcp://192.0.2.2:65536": want a port from 1 to 65535`,
		"tcp://192.0.2.2:5555/topic":   `address "tcp://192.0.2.2:5555/topic": want a port from 1 to 65535`,
		"tcp://eth0;192.0.2.2:5555":    `address "tcp://eth0;192.0.2.2:5555": want one host, without a source address before it`,
		"tcp://some where:5555":        `address "tcp://some where:5555": "some where" is not a host`,
		"ipc:///tmp/socket":            `address "ipc:///tmp/socket": want tcp://host:port`,
		"inproc://name":                `address "inproc://name": want tcp://host:port`,
		"192.0.2.2:5555":               `address "192.0.2.2:5555": want tcp://host:port`,
		"":                             `address "": want tcp://host:port`,
		"nats://192.0.2.2:4222":        `address "nats://192.0.2.2:4222": want tcp://host:port`,
		"TCP://192.0.2.2:5555":         `address "TCP://192.0.2.2:5555": want tcp://host:port`,
		"tcp://user@192.0.2.2:port":    `address "tcp://user@192.0.2.2:port": want a port from 1 to 65535`,
		"tcp://192.0.2.2:5555,x:5556":  `address "tcp://192.0.2.2:5555,x:5556": want tcp://host:port: address 192.0.2.2:5555,x:5556: too many colons in address`,
		"tcp://[2001:db8::1]":          `address "tcp://[2001:db8::1]": want tcp://host:port: address [2001:db8::1]: missing port in address`,
		"tcp://[2001:db8::1%25x]:5555": "[2001:db8::1%25x]:5555",
	} {
		got, err := hostPort(endpoint)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", endpoint, got, want)
		}
	}
}

func TestSubRejectsInvalidConfiguration(t *testing.T) {
	unexpected := func(frames [][]byte) { t.Error("got a message without a connection") }
	for _, s := range []*Sub{
		{Address: "tcp://*:5555", Topics: []string{"a"}},
		{Address: "tcp://192.0.2.1:5555"},
	} {
		for _, err := range []error{s.Run(t.Context(), unexpected), s.RunReconnecting(t.Context(), unexpected, nil)} {
			if err == nil || !strings.Contains(err.Error(), s.Address) {
				t.Errorf("got error %v, want one that names %s", err, s.Address)
			}
		}
	}
}
