package endpoint

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// refusals are what etcd says where it does not know who asks, and what to do about that.
var refusals = []struct {
	says error
	hint string
}{
	{rpctypes.ErrUserEmpty, "etcd wants a user: --user with --password-file, or ETCDCTL_USER and ETCDCTL_PASSWORD"},
	{rpctypes.ErrAuthFailed, "check the user and the password (etcd does not say which of them it is)"},
	{rpctypes.ErrInvalidAuthToken, "check the token, of --auth-jwt-token-file or ETCDCTL_AUTH_JWT_TOKEN: it may have expired, or be for another etcd; with a user and a password, try again"},
}

// Refusal returns what to do where an error says that etcd does not know who asks, else nothing.
func Refusal(err error) string {
	for _, r := range refusals {
		if errors.Is(err, r.says) {
			return r.hint
		}
	}
	return ""
}

// login fills in as whom the client logs in. Flags beat variables; where both are given by
// variables, a token beats a user, as with etcdctl.
func (o *Options) login(c *clientv3.Config) (err error) {
	switch {
	case o.TokenFile != "" && o.userByFlag():
		return o.bad("auth-jwt-token-file", "use one of them", "there is also a user or a password")
	case o.TokenFile != "":
		f := &tokenFile{name: o.TokenFile}
		if f.last, err = f.read(); err != nil {
			return o.bad("auth-jwt-token-file", "the file holds the token and nothing else, on one line", "%w", err)
		}
		c.DialOptions = append(c.DialOptions, grpc.WithPerRPCCredentials(f))
	case o.token != "" && !o.userByFlag():
		if err := checkToken(o.token); err != nil {
			return o.bad("auth-jwt-token", "a token is three parts in base64url with dots between them", "%w", err)
		}
		c.Token = o.token
	default:
		c.Username, c.Password, err = o.credentials()
	}
	return err
}

// checkToken returns an error if a token cannot be one. The error does not show it.
func checkToken(token string) error {
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("it holds something else than a token")
	}
	return nil
}

// A tokenFile shows etcd the token that is in a file. It reads the file for each request: tokens
// expire, and somebody writes new ones while a lock is held.
type tokenFile struct {
	name string

	mu   sync.Mutex
	last string // that could be read
}

func (f *tokenFile) read() (string, error) {
	content, err := os.ReadFile(f.name)
	token := strings.TrimSpace(string(content))
	return token, cmp.Or(err, checkToken(token))
}

// GetRequestMetadata returns the token. If the file cannot be read, it is the one from before.
func (f *tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if token, err := f.read(); err == nil {
		f.last = token
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: f.last}, nil
}

// RequireTransportSecurity is false: whether TLS is needed was decided before.
func (f *tokenFile) RequireTransportSecurity() bool { return false }

// secret returns the flag of a setting that comes with a secret, empty if none was given.
func (o *Options) secret() string {
	switch {
	case o.TokenFile != "":
		return "auth-jwt-token-file"
	case o.token != "" && !o.userByFlag():
		return "auth-jwt-token"
	case o.User != "":
		return "user"
	}
	return ""
}

// userByFlag reports whether flags say who asks.
func (o *Options) userByFlag() bool {
	return o.changed("user") || o.changed("password") || o.changed("password-file")
}

// credentials returns user and password.
func (o *Options) credentials() (user, password string, err error) {
	user, password = o.User, o.Password
	if name, inline, ok := strings.Cut(o.User, ":"); ok {
		if o.changed("password") || o.PasswordFile != "" {
			return "", "", o.bad("user", "give the password in one place", "it has a password in it, and there is another one")
		}
		user, password = name, inline
	}
	if o.PasswordFile != "" {
		if o.changed("password") {
			return "", "", o.bad("password-file", "give the password in one place", "there is also --password")
		}
		content, err := os.ReadFile(o.PasswordFile)
		if err != nil {
			return "", "", o.bad("password-file", "the file holds the password and nothing else", "%w", err)
		}
		password = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
		if password == "" {
			return "", "", o.bad("password-file", "the file holds the password and nothing else", "%q is empty", o.PasswordFile)
		}
	}
	switch {
	case user == "" && password != "" && (o.changed("password") || o.PasswordFile != "" || o.User != ""):
		return "", "", o.bad("user", "name the user with --user or ETCDCTL_USER", "there is a password and no user")
	case user == "":
		return "", "", nil // a variable with a password alone does not ask for a login
	case password == "":
		return "", "", o.bad("user", "use --password-file or ETCDCTL_PASSWORD", "there is no password for user %q", user)
	}
	return user, password, nil
}
