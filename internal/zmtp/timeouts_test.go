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

// Each publisher stalls in its own way, after the subscription. What it is asked
// meanwhile, and when it is given up, is exact: the clock is the test's.
func TestSubDropsStalledPublishers(t *testing.T) {
	const second = time.Second
	patient := Sub{PingInterval: 3 * second, Timeout: 2 * second}
	for _, test := range []struct {
		name  string
		sub   Sub
		minor byte
		says  string
		want  string
		after time.Duration
		asked string
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
		{"silent, never asked", Sub{PingInterval: -1, SilenceTimeout: time.Minute}, 1, "", "nothing received for 1m0s", time.Minute, ""},
		{"silent, by default", Sub{}, 1, "", "nothing received for 5s after a ping", 10 * second, subPing},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := ""
				o := runAgainst(t, test.sub, func(p *fakePublisher) {
					if test.sub.PingInterval < 0 {
						p.shakeHands(test.minor)
						p.expect(command("SUBSCRIBE", "a"))
					} else {
						p.acceptSubscription(test.minor, "a")
					}
					p.send(test.says)
					asked = p.readAll()
				})
				o.wantError(t, test.want)
				if o.took != test.after {
					t.Errorf("given up after %v, want %v", o.took, test.after)
				}
				if asked != test.asked {
					t.Errorf("the publisher heard %q, want %q", asked, test.asked)
				}
			})
		})
	}
}

func TestSubDropsStalledHandshakes(t *testing.T) {
	s := Sub{HandshakeTimeout: 4 * time.Second}
	for name, script := range map[string]func(p *fakePublisher){
		"says nothing": func(p *fakePublisher) { p.readAll() },
		"reads nothing": func(p *fakePublisher) {
			for gone := false; !gone; { // by a writer's deadline alone: a read would be an answer
				time.Sleep(time.Second)
				p.conn.SetWriteDeadline(time.Now())
				_, err := io.WriteString(p.conn, "x")
				gone = err == io.ErrClosedPipe
			}
		},
		"says a byte at a time": func(p *fakePublisher) {
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
					t.Errorf("given up after %v, want %v", o.took, s.HandshakeTimeout)
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
				t.Errorf("given up after %v, want %v", o.took, want)
			}
		})
	}
}

// TestSubLimitsHandshakesByDefault, by default.
func TestSubLimitsHandshakesByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{}, func(p *fakePublisher) {
			p.expect(greeting)
			time.Sleep(time.Minute)
		})
		o.wantError(t, "handshake: not finished in 5s")
	})
}

// Bytes that trickle in are no sign of life: a frame is.
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
			t.Errorf("given up after %v, want 2s", o.took)
		}
	})
}

// A publisher that pings without end and never reads the answers.
func TestSubDropsPublishersThatDoNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{Timeout: 2 * time.Second}, func(p *fakePublisher) {
			p.acceptSubscription(1, "a")
			p.send(strings.Repeat(command("PING", "\x00\x00"), 1000))
			// Waits for the end by writing, since reading would be what it does not do.
			for {
				if _, err := io.WriteString(p.conn, subPing); err != nil {
					return
				}
			}
		})
		o.wantError(t, "the peer has read nothing for 2s")
		if o.took != 2*time.Second {
			t.Errorf("given up after %v, want 2s", o.took)
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

// Any frame is a sign of life, so that who talks is never asked.
func TestSubDoesNotPingBusyPublishers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := runAgainst(t, Sub{PingInterval: time.Second}, func(p *fakePublisher) {
			p.acceptSubscription(1, "a")
			for _, says := range []string{message("a"), command("PONG", ""), command("NEWS", ""), message("a", "b")} {
				time.Sleep(time.Second - 1)
				p.send(says)
			}
			time.Sleep(time.Second - 1)
			p.conn.SetReadDeadline(time.Now())
			if said := p.readAll(); said != "" {
				t.Errorf("the publisher heard %q, want nothing", said)
			}
		})
		o.wantMessages(t, `["a"]`, `["a"]["b"]`)
	})
}

// A publisher of 3.0 may have nothing to say for days, and cannot be asked.
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

// What was due while deliver ran is read before anybody is given up for it.
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
