package zmtp

import (
	"strings"
	"testing"
)

const (
	wantGreeting = "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x03\x01NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	wantReady  = "\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
	wantSent30 = wantGreeting + wantReady + "\x00\x0b\x01kv_metrics\x00\x03\x01l2"
	wantSent31 = wantGreeting + wantReady + "\x04\x14\x09SUBSCRIBEkv_metrics\x04\x0c\x09SUBSCRIBEl2\x04\x07\x04PING\x00\x00"
)

// The recordings are what publishers of each kind sent. The subscriber's bytes must match
// exactly.
func TestSubReplaysRecordings(t *testing.T) {
	const (
		load1 = `["kv_metrics"]["\x00\x03:\x1c\xa9\xb9\xdd\x15"]["\x00\x00\x00\x00\x00\x00\x00\x00"]`
		load2 = `["kv_metrics"]["\x00\r\x03\x12\xcfWGB"]["\x00\x00\x00\x00\x00\x00\x00\x00"]["\x01\x00\x00\x00\xac\x85`
		long  = `["kv_metrics"][""]["\x00\x01\x02`
		event = `["kv_metrics"]["\x00\x00\x00\x00\x00\x00\x00*"]["\x00\x00\x00\x00\x00\x00\x00`
	)
	for _, test := range []struct {
		file     string
		sent     string
		pongs    int
		messages []string // how they begin
	}{
		{"libzmq-4.3.5-xpub-heartbeats", wantSent31, 6, []string{load1, load2, long}},
		{"libzmq-4.3.4-pub", wantSent31, 0, []string{load1, load2, long}},
		{"libzmq-4.3.2-pub-heartbeats", wantSent30, 6, []string{load1, load2, long}},
		{"zeromq.rs-0.4.1-pub", wantSent30, 0, []string{event + `\x00"]`, event + `\x01"]`}},
	} {
		t.Run(test.file, func(t *testing.T) {
			for _, step := range []int{0, 1, 7} { // bytes at once
				c := &replayConn{Reader: strings.NewReader(readRecording(t, "testdata/"+test.file+".hex")), step: step}
				o := replay(t, Sub{Topics: []string{"kv_metrics", "l2"}}, c)
				o.wantError(t, "closed by the peer: EOF")
				if o.connected != 1 {
					t.Errorf("connected %d times, want once", o.connected)
				}
				if got, want := c.sent.String(), test.sent+strings.Repeat(emptyPong, test.pongs); got != want {
					t.Errorf("sent\n%q, want\n%q", got, want)
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

// The subscriber must wait for the publisher at each step where the RFCs require it.
func TestSubSubscribesByPeerVersion(t *testing.T) {
	for _, test := range []struct {
		major, minor byte
		subscription string
	}{
		{3, 0, "\x00\x02\x01a"},
		{3, 1, "\x04\x0b\x09SUBSCRIBEa" + subPing},
		{3, 7, "\x04\x0b\x09SUBSCRIBEa" + subPing},
		{4, 0, "\x04\x0b\x09SUBSCRIBEa" + subPing},
	} {
		o := runAgainst(t, Sub{}, func(p *fakePublisher) {
			p.expect(wantGreeting)
			p.send(greetingOf(test.major, test.minor))
			p.expect(wantReady)
			p.send(readyXPUB)
			p.expect(test.subscription)
			p.send(message("ab", "c"))
		})
		o.wantMessages(t, `["ab"]["c"]`)
		if o.connected != 1 {
			t.Errorf("%d.%d: connected %d times, want once", test.major, test.minor, o.connected)
		}
	}
}

func TestSubSendsLongTopicInLongFrame(t *testing.T) {
	topic := strings.Repeat("x", 300)
	for minor, want := range []string{
		"\x02\x00\x00\x00\x00\x00\x00\x01\x2d\x01" + topic,
		"\x06\x00\x00\x00\x00\x00\x00\x01\x36\x09SUBSCRIBE" + topic,
	} {
		runAgainst(t, Sub{Topics: []string{topic}, PingInterval: -1}, func(p *fakePublisher) {
			p.shakeHands(byte(minor))
			p.expect(want)
		})
	}
}

// RFC 37 requires the context in the reply. Long contexts are truncated, as in libzmq.
func TestSubAnswersPingWithContext(t *testing.T) {
	runAgainst(t, Sub{}, func(p *fakePublisher) {
		p.acceptSubscription(1, "a")
		p.send(command("PING", "\x00\x0a"))
		p.expect(command("PONG", ""))
		p.send(command("PING", "\x00\x00once upon a time"))
		p.expect(command("PONG", "once upon a time"))
		p.send(command("PING", "\x00\x00once upon a time, there was"))
		p.expect(command("PONG", "once upon a time"))
	})
}

// libzmq sends a ping when it is due, even between the frames of a message.
func TestSubAcceptsCommandsWithinMessages(t *testing.T) {
	o := runAgainst(t, Sub{}, func(p *fakePublisher) {
		p.acceptSubscription(1, "a")
		p.send("\x01\x01a" + command("PING", "\x00\x00x"))
		p.expect(command("PONG", "x"))
		p.send("\x01\x00" + command("PONG", "") + command("NEWS", "of a later version") + "\x00\x01c" + message("next"))
	})
	o.wantMessages(t, `["a"][""]["c"]`, `["next"]`)
	o.wantError(t, "closed by the peer: EOF")
}

func TestSubEndsOnErrorCommand(t *testing.T) {
	o := runAgainst(t, Sub{}, func(p *fakePublisher) {
		p.acceptSubscription(1, "a")
		p.send(command("ERROR", "\x09not today"))
	})
	o.wantError(t, `the peer sent an ERROR: "not today"`)
}

// The subscription is known to be set only when the publisher has answered the first ping.
func TestSubConnectsAfterFirstReply(t *testing.T) {
	o := runAgainst(t, Sub{}, func(p *fakePublisher) {
		p.shakeHands(1)
		p.expect(command("SUBSCRIBE", "a") + subPing)
		p.send(command("PING", "\x00\x00"))
		p.expect(command("PONG", ""))
	})
	if o.connected != 0 {
		t.Errorf("connected %d times, want never", o.connected)
	}
}
