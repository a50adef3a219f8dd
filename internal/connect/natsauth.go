package connect

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// The environment variables of Dynamo's NATS client, in the order of precedence.
const (
	natsUser  = "NATS_AUTH_USERNAME"
	natsPass  = "NATS_AUTH_PASSWORD"
	natsToken = "NATS_AUTH_TOKEN"
	natsNkey  = "NATS_AUTH_NKEY"
	natsCreds = "NATS_AUTH_CREDENTIALS_FILE"
)

// natsCredentials chooses the credentials, and returns their source for errors. hasCertificate
// means that a client certificate identifies the program.
func natsCredentials(urls []*url.URL, getenv func(string) string, hasCertificate bool) (opts []nats.Option, source string, err error) {
	user, pass := getenv(natsUser), getenv(natsPass)
	switch {
	case !slices.ContainsFunc(urls, func(u *url.URL) bool { return u.User == nil }):
		return nil, "the credentials in --nats-server", nil
	case user != "" && pass != "":
		return []nats.Option{nats.UserInfo(user, pass)}, natsUser + " and " + natsPass, nil
	case getenv(natsToken) != "":
		return []nats.Option{nats.Token(getenv(natsToken))}, natsToken, nil
	case getenv(natsNkey) != "":
		opt, err := nkeyOption([]byte(getenv(natsNkey)))
		return []nats.Option{opt}, natsNkey, err
	case getenv(natsCreds) != "":
		return []nats.Option{nats.UserCredentials(getenv(natsCreds))}, natsCreds, checkCredentialsFile(getenv(natsCreds))
	}
	// Dynamo falls back to its default user even if only one of the two is set. That is never
	// intended, so it is an error here.
	if err := requireBoth(getenv, natsUser, natsPass); err != nil {
		return nil, "", err
	}
	if hasCertificate {
		// A server that takes the user from the certificate (verify_and_map) rejects a password
		// if that user has none.
		return nil, "the certificate of " + flagCert, nil
	}
	return []nats.Option{nats.UserInfo("user", "user")}, fmt.Sprintf("Dynamo's default user (neither %s and %s, nor %s, %s or %s is set)",
		natsUser, natsPass, natsToken, natsNkey, natsCreds), nil
}

// nkeyOption returns an option that signs with a user's seed. The errors of package nkeys do not
// contain the seed.
func nkeyOption(seed []byte) (nats.Option, error) {
	key, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return nil, fmt.Errorf("%s: want the seed of an nkey (SU…): %w", natsNkey, err)
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("%s: want the seed of an nkey (SU…): %w", natsNkey, err)
	}
	return nats.Nkey(public, key.Sign), nil
}

// checkCredentialsFile checks the file before the connection. nats.go would find an error only
// while connecting, and report it like an unreachable server.
func checkCredentialsFile(file string) error {
	contents, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("%s: %w", natsCreds, err)
	}
	_, jwtErr := nkeys.ParseDecoratedJWT(contents)
	_, keyErr := nkeys.ParseDecoratedUserNKey(contents)
	if err := errors.Join(jwtErr, keyErr); err != nil {
		return fmt.Errorf("%s: %s holds no user JWT and seed", natsCreds, file)
	}
	return nil
}
