package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/common/config"
	"golang.org/x/crypto/bcrypt"
)

// guarded is a listener whose connections must meet the demands that are in force when they
// are made.
type guardedListener struct {
	net.Listener
	config *WebConfig
	server *http.Server

	last *requirements // those of the last connection
}

// Accept implements net.Listener.
func (g *guardedListener) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.last = g.config.current.Load()
	if g.last.tls == nil {
		return conn, nil
	}
	c := g.last.tls
	if g.server.TLSNextProto["h2"] == nil { // it is switched off by GODEBUG
		c = c.Clone()
		c.NextProtos = []string{"http/1.1"}
	}
	return tls.Server(conn, c), nil
}

// madeUnder is the key of the demands under which a request's connection was made.
type requirementsKey struct{}

// remember is a ConnContext of http.Server, which asks for it before it accepts the next
// connection.
func (g *guardedListener) connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(context.WithValue(ctx, connKey{}, c), requirementsKey{}, g.last)
}

// guard is h for clients that meet the demands. When other clients may get in, answers that
// go on end.
func (c *WebConfig) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := c.current.Load()
		if d.limiter != nil && !d.limiter.Allow() {
			refuse(w, http.StatusTooManyRequests)
			return
		}
		d.setHeaders(w.Header())
		if before, _ := r.Context().Value(requirementsKey{}).(*requirements); before != nil && before.clients != d.clients && !d.metBy(r.TLS) {
			w.Header().Set("Connection", "close")
			refuse(w, http.StatusMisdirectedRequest) // RFC 9110: it may be sent on another connection
			return
		}
		if d.users != nil && !d.users.check(r) {
			w.Header().Set("WWW-Authenticate", "Basic")
			refuse(w, http.StatusUnauthorized)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(d.replaced, cancel)()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

func refuse(w http.ResponseWriter, status int) { http.Error(w, http.StatusText(status), status) }

// mostWrong is how many passwords that are wrong are remembered.
const maxWrongPasswords = 100

// passwords are the users, and what is known of the passwords that they gave. To compare one
// with a hash takes tens of milliseconds of CPU, so that one is compared at a time. The right
// ones are remembered for good: guesses do not make them be compared again.
type passwords struct {
	users     map[string]config.Secret // their hashes
	decoyHash []byte                   // a hash to compare others with, so that they take as long
	comparing chan struct{}            // of one place, taken by who compares

	mu    sync.Mutex
	right map[string][sha256.Size]byte
	wrong map[[sha256.Size]byte]struct{}
}

func newPasswords(users map[string]config.Secret) *passwords {
	cost := 0
	for _, hash := range users {
		c, _ := bcrypt.Cost([]byte(hash)) // it was valid when it was read
		cost = max(cost, c)
	}
	return &passwords{
		users:     users,
		decoyHash: fmt.Appendf(nil, "$2y$%02d$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi", cost),
		comparing: make(chan struct{}, 1),
		right:     make(map[string][sha256.Size]byte),
		wrong:     make(map[[sha256.Size]byte]struct{}),
	}
}

// admit reports whether a request has the right password.
func (p *passwords) check(r *http.Request) bool {
	user, password, given := r.BasicAuth()
	if !given {
		return false
	}
	hash, known := p.users[user]
	if !known {
		hash = config.Secret(p.decoyHash)
	}
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(len(user))), user+password...))
	if right, decided := p.recall(user, sum); decided {
		return right
	}
	select {
	case p.comparing <- struct{}{}:
		defer func() { <-p.comparing }()
	case <-r.Context().Done():
		return false
	}
	right := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil && known
	p.remember(user, sum, right)
	return right
}

// recall is what is known of a password that was given before.
func (p *passwords) recall(user string, sum [sha256.Size]byte) (right, decided bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.right[user]; ok && subtle.ConstantTimeCompare(known[:], sum[:]) == 1 {
		return true, true
	}
	_, wrong := p.wrong[sum]
	return false, wrong
}

func (p *passwords) remember(user string, sum [sha256.Size]byte, right bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if right {
		p.right[user] = sum
		return
	}
	for other := range p.wrong { // any
		if len(p.wrong) < maxWrongPasswords {
			break
		}
		delete(p.wrong, other)
	}
	p.wrong[sum] = struct{}{}
}
