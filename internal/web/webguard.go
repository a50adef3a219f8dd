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

// guardedListener is a listener whose connections must meet the requirements that are in force
// when they are made.
type guardedListener struct {
	net.Listener
	config *Config
	server *http.Server

	last *requirements // in force for the last connection
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
	if g.server.TLSNextProto["h2"] == nil { // HTTP/2 is disabled by GODEBUG
		c = c.Clone()
		c.NextProtos = []string{"http/1.1"}
	}
	return tls.Server(conn, c), nil
}

// requirementsKey is the context key of the requirements under which a connection was made.
type requirementsKey struct{}

// connContext stores the requirements of a connection in its context. http.Server calls it before it
// accepts the next connection.
func (g *guardedListener) connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(context.WithValue(ctx, connKey{}, c), requirementsKey{}, g.last)
}

// guard serves h to clients that meet the requirements. When those change, responses in progress
// end.
func (c *Config) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		required := c.current.Load()
		if required.limiter != nil && !required.limiter.Allow() {
			refuse(w, http.StatusTooManyRequests)
			return
		}
		required.setHeaders(w.Header())
		if before, _ := r.Context().Value(requirementsKey{}).(*requirements); before != nil && before.clients != required.clients && !required.metBy(r.TLS) {
			w.Header().Set("Connection", "close")
			refuse(w, http.StatusMisdirectedRequest) // RFC 9110: the client may retry on another connection
			return
		}
		if required.users != nil && !required.users.check(r) {
			w.Header().Set("WWW-Authenticate", "Basic")
			refuse(w, http.StatusUnauthorized)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(required.replaced, cancel)()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// refuse responds with a status and its text.
func refuse(w http.ResponseWriter, status int) { http.Error(w, http.StatusText(status), status) }

// maxWrongPasswords is how many wrong passwords are remembered.
const maxWrongPasswords = 100

// passwords are the users and the results of checking their passwords. Comparing a password with
// its hash takes tens of milliseconds of CPU, so only one is compared at a time. The right ones
// are always remembered: wrong guesses do not displace them.
type passwords struct {
	users     map[string]config.Secret // bcrypt hashes by user
	decoyHash []byte                   // for unknown users, so that they take as long
	comparing chan struct{}            // capacity 1: a lock that is held during a comparison

	mu    sync.Mutex
	right map[string][sha256.Size]byte
	wrong map[[sha256.Size]byte]struct{}
}

func newPasswords(users map[string]config.Secret) *passwords {
	cost := 0
	for _, hash := range users {
		c, _ := bcrypt.Cost([]byte(hash)) // checked by parseWebConfig
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

// check reports whether a request has the right password.
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

// recall returns the remembered result for a password, if there is one.
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
