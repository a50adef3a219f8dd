package zmtp

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Each publisher stalls in another way after the subscription. With synctest's clock, the
// pings that it receives and the time at which it is disconnected are exact.
func TestSubDropsStalledPublishers(t *testing.T) {
	const second = time.Second
	patient := Sub{PingInterval: 3 * second, Timeout: 2 * second}
	for _, test := range []struct {
		name  string
		sub   Sub
		minor byte
		sends string
		want  string
		after time.Duration
		pings string
	}{
		{"silent", patient, 1, "", "nothing received for 2s after a ping", 5 * second, subPing},
		{"silent after a message", patient, 1, message("a"), "nothing received for 2s after a ping", 5 * second, subPing},
		{"within a frame", patient, 1, "\x00\x05abc", "the rest of a message has not arrived after 2s", 2 * second, ""},
		{"within a long frame", patient, 1, "\x02\x00\x00\x00\x00\x00\x10\x00\x00abc", "the rest of a message has not arrived after 2s", 2 * second, ""},
		{"within a length", patient, 1, "\x02\x00", "the rest of a message has not arrived after 2s", 2 * second, ""},
		{"between the frames of a message", patient, 1, "\x01\x01a", "the rest of a message has not arrived after 2s", 2 * second, ""},
		{"within a command", patient, 1, "\x04\x05\x04PO", "the rest of a message has not arrived after 2s", 2 * second, ""},
		{"silent, 3.0", Sub{SilenceTimeout: time.Hour}, 0, message("a"), "nothing received for 1h0m0s", time.Hour, ""},
		{"within a frame, 3.0", patient, 0, "\x00\x05abc", "the rest of a message has not arrived after 2s", 2 * second, ""},
		{"between the frames of a message, 3.0", patient, 0, "\x01\x01a", "the rest of a message has not arrived after 2s", 2 * second, ""},
		{"silent after a ping with a time to live, 3.0", patient, 0, command("PING", "\x00\x0a"), "nothing received for 1s", second, emptyPong},
		{"silent, pings disabled", Sub{PingInterval: -1, SilenceTimeout: time.Minute}, 1, "", "nothing received for 1m0s", time.Minute, ""},
		{"silent, by default", Sub{}, 1, "", "nothing received for 5s after a ping", 10 * second, subPing},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pings := ""
				o := runAgainst(t, test.sub, func(p *fakePublisher) {
					if test.sub.PingInterval < 0 {
						p.shakeHands(test.minor)
						p.expect(command("SUBSCRIBE", "a"))
					} else {
						p.acceptSubscription(test.minor, "a")
					}
					p.send(test.sends)
					pings = p.readAll()
				})
				o.wantError(t, test.want)
				if o.took != test.after {
					t.Errorf("disconnected after %v, want %v", o.took, test.after)
				}
				if pings != test.pings {
					t.Errorf("the publisher received %q, want %q", pings, test.pings)
				}
			})
		})
	}
}

func TestSubDropsStalledHandshakes(t *testing.T) {
	s := Sub{HandshakeTimeout: 4 * time.Second}
	for name, script := range map[string]func(p *fakePublisher){
		"sends nothing": func(p *fakePublisher) { p.readAll() },
		"reads nothing": func(p *fakePublisher) {
			for closed := false; !closed; { // only writes can detect the end: a read would be progress
				time.Sleep(time.Second)
				p.conn.SetWriteDeadline(time.Now())
				_, err := io.WriteString(p.conn, "x")
				closed = err == io.ErrClosedPipe
			}
		},
		"sends a byte at a time": func(p *fakePublisher) {
			go p.readAll()
			for b := range strings.SplitSeq(greetingOf(3, 1)+readyPUB, "") {
				time.Sleep(100 * time.Millisecond)
				p.send(b)
			}
		},
		"stops before READY": func(p *fakePublisher) {
			p.expect(greeting)
			p.send(greetingOf(3, 1))
			p.readAll()
		},
		"stops within READY": func(p *fakePublisher) {
			p.expect(greeting)
			p.send(greetingOf(3, 1) + readyPUB[:5])
			p.readAll()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := runAgainst(t, s, script)
				o.wantError(t, "handshake: ")
				if o.took != s.HandshakeTimeout {
					t.Errorf("disconnected after %v, want %v", o.took, s.HandshakeTimeout)
				}
			})
		})
	}
}

func TestSubLimitsDialling(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{4 * time.Second: 4 * time.Second, 0: 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := Sub{HandshakeTimeout: given}
			s.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			o := runSub(t.Context(), s)
			o.wantError(t, "dial: context deadline exceeded")
			if o.took != want {
				t.Errorf("disconnected after %v, want %v", o.took, want)
			}
		})
	}
}

func TestSubLimitsHandshakesByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{}, func(p *fakePublisher) {
			p.expect(greeting)
			time.Sleep(time.Minute)
		})
		o.wantError(t, "handshake: not finished in 5s")
	})
}

// A frame whose bytes arrive slowly does not extend the timeout.
func TestSubDropsTricklingFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{Timeout: 2 * time.Second}, func(p *fakePublisher) {
			p.acceptSubscription(1, "a")
			p.send("\x00\x64")
			for range 100 {
				time.Sleep(100 * time.Millisecond)
				p.send("x")
			}
		})
		o.wantError(t, "the rest of a message has not arrived after 2s")
		if o.took != 2*time.Second {
			t.Errorf("disconnected after %v, want 2s", o.took)
		}
	})
}

// The publisher sends pings without end and never reads the replies.
func TestSubDropsPublishersThatDoNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{Timeout: 2 * time.Second}, func(p *fakePublisher) {
			p.acceptSubscription(1, "a")
			p.send(strings.Repeat(command("PING", "\x00\x00"), 1000))
			// Wait for the end by writing, because this publisher does not read.
			for {
				if _, err := io.WriteString(p.conn, subPing); err != nil {
					return
				}
			}
		})
		o.wantError(t, "the peer has read nothing for 2s")
		if o.took != 2*time.Second {
			t.Errorf("disconnected after %v, want 2s", o.took)
		}
	})
}

func TestSubKeepsQuietPublishersThatAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{PingInterval: time.Second}, func(p *fakePublisher) {
			p.acceptSubscription(1, "a")
			for range 3600 {
				p.expect(subPing)
				p.send(emptyPong)
			}
			p.send(message("a"))
		})
		o.wantMessages(t, `["a"]`)
		if o.took != time.Hour {
			t.Errorf("lasted %v, want 1h", o.took)
		}
	})
}

// Any frame counts, so a publisher that sends frames gets no pings.
func TestSubDoesNotPingBusyPublishers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{PingInterval: time.Second}, func(p *fakePublisher) {
			p.acceptSubscription(1, "a")
			for _, frame := range []string{message("a"), command("PONG", ""), command("NEWS", ""), message("a", "b")} {
				time.Sleep(time.Second - 1)
				p.send(frame)
			}
			time.Sleep(time.Second - 1)
			p.conn.SetReadDeadline(time.Now())
			if pings := p.readAll(); pings != "" {
				t.Errorf("the publisher received %q, want nothing", pings)
			}
		})
		o.wantMessages(t, `["a"]`, `["a"]["b"]`)
	})
}

// A publisher of 3.0 may have nothing to publish for days, and does not answer pings.
func TestSubKeepsSilentPublishersOfZMTP30(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{}, func(p *fakePublisher) {
			p.acceptSubscription(0, "a")
			time.Sleep(72 * time.Hour)
			p.send(message("a"))
		})
		o.wantMessages(t, `["a"]`)
		o.wantError(t, "closed by the peer: EOF")
	})
}

// A message that arrived while deliver ran is read before the timeout is checked.
func TestSubReadsPendingMessagesAfterSlowDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe()
		go func() {
			defer theirs.Close()
			p := &fakePublisher{t, theirs}
			p.acceptSubscription(1, "a")
			p.send(message("a"))
			p.send(message("b"))
		}()
		delivered := 0
		s := &Sub{Address: testAddress, Topics: []string{"a"}, PingInterval: time.Second, Timeout: time.Second}
		s.Dial = func(context.Context, string) (net.Conn, error) { return ours, nil }
		s.Run(t.Context(), func([][]byte) {
			delivered++
			time.Sleep(time.Minute)
		})
		if delivered != 2 {
			t.Errorf("delivered %d messages, want 2", delivered)
		}
	})
}
