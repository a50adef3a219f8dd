package zmtp

import (
	"strings"
	"testing"
)

const (
	saidGreeting = "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x03\x01NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	saidReady = "\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
	said30    = saidGreeting + saidReady + "\x00\x0b\x01kv_metrics\x00\x03\x01l2"
	said31    = saidGreeting + saidReady + "\x04\x14\x09SUBSCRIBEkv_metrics\x04\x0c\x09SUBSCRIBEl2\x04\x07\x04PING\x00\x00"
)

// What publishers of each kind really say, and what we answer, byte for byte.
func TestRecordedPublishers(t *testing.T) {
	const (
		load1 = `["kv_metrics"]["\x00\x03:\x1c\xa9\xb9\xdd\x15"]["\x00\x00\x00\x00\x00\x00\x00\x00"]`
		load2 = `["kv_metrics"]["\x00\r\x03\x12\xcfWGB"]["\x00\x00\x00\x00\x00\x00\x00\x00"]["\x01\x00\x00\x00\xac\x85`
		long  = `["kv_metrics"][""]["\x00\x01\x02`
		event = `["kv_metrics"]["\x00\x00\x00\x00\x00\x00\x00*"]["\x00\x00\x00\x00\x00\x00\x00`
	)
	for _, test := range []struct {
		file     string
		said     string
		pongs    int
		messages []string // how they begin
	}{
		{"libzmq-4.3.5-xpub-heartbeats", said31, 6, []string{load1, load2, long}},
		{"libzmq-4.3.4-pub", said31, 0, []string{load1, load2, long}},
		{"libzmq-4.3.2-pub-heartbeats", said30, 6, []string{load1, load2, long}},
		{"zeromq.rs-0.4.1-pub", said30, 0, []string{event + `\x00"]`, event + `\x01"]`}},
	} {
		t.Run(test.file, func(t *testing.T) {
			for _, step := range []int{0, 1, 7} { // bytes at once
				c := &tape{Reader: strings.NewReader(recorded(t, "testdata/"+test.file+".hex")), step: step}
				o := replay(t, Sub{Topics: []string{"kv_metrics", "l2"}}, c)
				o.failsWith(t, "closed by the peer: EOF")
				if o.connected != 1 {
					t.Errorf("connected %d times, want once", o.connected)
				}
				if got, want := c.said.String(), test.said+strings.Repeat(emptyPong, test.pongs); got != want {
					t.Errorf("said\n%q, want\n%q", got, want)
				}
				if len(o.messages) != len(test.messages) {
					t.Fatalf("delivered %d messages, want %d", len(o.messages), len(test.messages))
				}
				for i, want := range test.messages {
					if !strings.HasPrefix(o.messages[i], want) {
						t.Errorf("delivered %s, want %s…", o.messages[i], want)
					}
				}
			}
		})
	}
}

// Each side's turn in the handshake: we wait for the publisher where the RFCs say so.
func TestSubscriptionFollowsThePeersVersion(t *testing.T) {
	for _, test := range []struct {
		major, minor byte
		subscription string
	}{
		{3, 0, "\x00\x02\x01a"},
		{3, 1, "\x04\x0b\x09SUBSCRIBEa" + subPing},
		{3, 7, "\x04\x0b\x09SUBSCRIBEa" + subPing},
		{4, 0, "\x04\x0b\x09SUBSCRIBEa" + subPing},
	} {
		o := perform(t, Sub{}, func(p *player) {
			p.hear(saidGreeting)
			p.say(greetingOf(test.major, test.minor))
			p.hear(saidReady)
			p.say(readyXPUB)
			p.hear(test.subscription)
			p.say(message("ab", "c"))
		})
		o.heard(t, `["ab"]["c"]`)
		if o.connected != 1 {
			t.Errorf("%d.%d: connected %d times, want once", test.major, test.minor, o.connected)
		}
	}
}

func TestLongTopicTakesALongFrame(t *testing.T) {
	topic := strings.Repeat("x", 300)
	for minor, want := range []string{
		"\x02\x00\x00\x00\x00\x00\x00\x01\x2d\x01" + topic,
		"\x06\x00\x00\x00\x00\x00\x00\x01\x36\x09SUBSCRIBE" + topic,
	} {
		perform(t, Sub{Topics: []string{topic}, Ping: -1}, func(p *player) {
			p.greet(byte(minor))
			p.hear(want)
		})
	}
}

// RFC 37 asks for the context back; libzmq cuts one that is too long, and so do we.
func TestPingIsAnsweredWithItsContext(t *testing.T) {
	perform(t, Sub{}, func(p *player) {
		p.accept(1, "a")
		p.say(command("PING", "\x00\x0a"))
		p.hear(command("PONG", ""))
		p.say(command("PING", "\x00\x00once upon a time"))
		p.hear(command("PONG", "once upon a time"))
		p.say(command("PING", "\x00\x00once upon a time, there was"))
		p.hear(command("PONG", "once upon a time"))
	})
}

// libzmq sends a ping when it is due, be it in the middle of a message.
func TestCommandsMayComeBetweenTheFramesOfAMessage(t *testing.T) {
	o := perform(t, Sub{}, func(p *player) {
		p.accept(1, "a")
		p.say("\x01\x01a" + command("PING", "\x00\x00x"))
		p.hear(command("PONG", "x"))
		p.say("\x01\x00" + command("PONG", "") + command("NEWS", "of a later version") + "\x00\x01c" + message("next"))
	})
	o.heard(t, `["a"][""]["c"]`, `["next"]`)
	o.failsWith(t, "closed by the peer: EOF")
}

func TestErrorCommandEndsTheConnection(t *testing.T) {
	o := perform(t, Sub{}, func(p *player) {
		p.accept(1, "a")
		p.say(command("ERROR", "\x09not today"))
	})
	o.failsWith(t, `the peer refuses us: "not today"`)
}

// Until the publisher has answered behind the subscription, nobody knows that it is set.
func TestNotConnectedBeforeTheAnswer(t *testing.T) {
	o := perform(t, Sub{}, func(p *player) {
		p.greet(1)
		p.hear(command("SUBSCRIBE", "a") + subPing)
		p.say(command("PING", "\x00\x00"))
		p.hear(command("PONG", ""))
	})
	if o.connected != 0 {
		t.Errorf("connected %d times, want never", o.connected)
	}
}
