package endpoint

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/client/pkg/v3/srv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/etcdlock/etcdlock/internal/plain"
)

// MakeRoom is what to do about an etcd that has no space.
const MakeRoom = "make room: etcdctl compact and defrag, or a larger --quota-backend-bytes of etcd; then etcdctl alarm disarm"

// Options are the settings as text. The zero value of one means that it was not given.
type Options struct {
	Endpoints          string
	CACert, Cert, Key  string // names of files
	InsecureSkipVerify bool
	InsecureTransport  bool   // endpoints without TLS are accepted where TLS is asked for
	User, Password     string // User may be name:password
	PasswordFile       string
	TokenFile          string
	DiscoverySRV       string
	DiscoverySRVName   string
	InsecureDiscovery  bool // endpoints without TLS are taken from SRV records
	KeepAliveTime      string
	KeepAliveTimeout   string

	embedded    directory
	token       string // from the variable; there is no flag, whose value everybody could see
	dialTimeout string

	flags   *pflag.FlagSet // all of the command, and own those that are registered here
	own     *pflag.FlagSet
	source  map[string]string // where a setting comes from, if not from a flag
	unclear error             // of a variable
}

// Held is the variable in which a command finds the endpoints of the etcdlocker that runs it. They
// stand in ETCD_LOCK_HOST as well.
const Held = "ETCDLOCK_HELD_ENDPOINTS"

// An OptionError is about one option or variable.
type OptionError struct {
	Option string // as the user knows it: --etcd, ETCDCTL_CERT
	Err    error
	Hint   string // the way out
}

// Error names the option and what is wrong with its value. It never shows a password.
func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *OptionError) Unwrap() error { return e.Err }

// AddFlags registers the flags.
func (o *Options) AddFlags(all *pflag.FlagSet) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	defer func() { all.AddFlagSet(f) }()
	o.flags, o.own = all, f
	f.StringVarP(&o.Endpoints, "etcd", "e", "", "")
	o.addEmbedded(f)
	f.StringVar(&o.CACert, "cacert", "", "")
	f.StringVar(&o.Cert, "cert", "", "")
	f.StringVar(&o.Key, "cert-key", "", "")
	f.BoolVar(&o.InsecureSkipVerify, "insecure-skip-tls-verify", false, "")
	f.BoolVar(&o.InsecureTransport, "insecure-transport", false, "")
	f.StringVar(&o.User, "user", "", "")
	f.StringVar(&o.Password, "password", "", "")
	f.StringVar(&o.PasswordFile, "password-file", "", "")
	f.StringVar(&o.TokenFile, "auth-jwt-token-file", "", "")
	f.StringVar(&o.DiscoverySRV, "discovery-srv", "", "")
	f.StringVar(&o.DiscoverySRVName, "discovery-srv-name", "", "")
	f.BoolVar(&o.InsecureDiscovery, "insecure-discovery", true, "")
	f.StringVar(&o.KeepAliveTime, "keepalive-time", "", "")
	f.StringVar(&o.KeepAliveTimeout, "keepalive-timeout", "", "")
}

// FromEnv fills in what no flag has given from the environment. An empty variable gives nothing.
func (o *Options) FromEnv(getenv func(string) string) {
	o.source = make(map[string]string)
	o.whereFromEnv(getenv)
	o.text(getenv, "cacert", &o.CACert, "ETCDCTL_CACERT")
	o.text(getenv, "cert", &o.Cert, "ETCDCTL_CERT")
	o.text(getenv, "cert-key", &o.Key, "ETCDCTL_KEY")
	o.text(getenv, "user", &o.User, "ETCDCTL_USER")
	if o.PasswordFile == "" && !strings.Contains(o.User, ":") {
		o.text(getenv, "password", &o.Password, "ETCDCTL_PASSWORD")
	}
	o.text(getenv, "auth-jwt-token", &o.token, "ETCDCTL_AUTH_JWT_TOKEN")
	o.text(getenv, "keepalive-time", &o.KeepAliveTime, "ETCDCTL_KEEPALIVE_TIME")
	o.text(getenv, "keepalive-timeout", &o.KeepAliveTimeout, "ETCDCTL_KEEPALIVE_TIMEOUT")
	o.text(getenv, "dial-timeout", &o.dialTimeout, "ETCDCTL_DIAL_TIMEOUT")
	o.truth(getenv, "insecure-skip-tls-verify", &o.InsecureSkipVerify, "ETCDCTL_INSECURE_SKIP_TLS_VERIFY")
	o.truth(getenv, "insecure-transport", &o.InsecureTransport, "ETCDCTL_INSECURE_TRANSPORT")
	o.truth(getenv, "insecure-discovery", &o.InsecureDiscovery, "ETCDCTL_INSECURE_DISCOVERY")
}

// whereFromEnv fills in how to find etcd. A flag that says so beats every variable that does. What
// an etcdlocker has handed its command comes last.
func (o *Options) whereFromEnv(getenv func(string) string) {
	host, handed := getenv("ETCD_LOCK_HOST"), getenv(Held)
	if !o.changed("discovery-srv") && host != handed {
		o.text(getenv, "etcd", &o.Endpoints, "ETCD_LOCK_HOST")
	}
	if !o.changed("etcd") && o.Endpoints == "" {
		o.text(getenv, "discovery-srv", &o.DiscoverySRV, "ETCDCTL_DISCOVERY_SRV")
	}
	if o.DiscoverySRV == "" {
		o.text(getenv, "etcd", &o.Endpoints, "ETCDCTL_ENDPOINTS")
		if host == handed {
			o.text(getenv, "etcd", &o.Endpoints, "ETCD_LOCK_HOST")
		}
	}
	o.text(getenv, "discovery-srv-name", &o.DiscoverySRVName, "ETCDCTL_DISCOVERY_SRV_NAME")
}

// text reads a variable, unless the flag of that name was given.
func (o *Options) text(getenv func(string) string, flag string, value *string, variable string) {
	if v := getenv(variable); v != "" && *value == "" && !o.changed(flag) {
		*value, o.source[flag] = v, variable
	}
}

// truth is text for a setting that is true or false.
func (o *Options) truth(getenv func(string) string, flag string, value *bool, variable string) {
	text := getenv(variable)
	if text == "" || o.changed(flag) {
		return
	}
	var err error
	o.source[flag] = variable
	if *value, err = strconv.ParseBool(text); err != nil {
		o.unclear = o.bad(flag, "write true or false, or take the variable away", "%q is neither true nor false", text)
	}
}

func (o *Options) changed(flag string) bool { return o.flags != nil && o.flags.Changed(flag) }

// bad is an error about a setting, under the name by which the user gave it.
func (o *Options) bad(flag, hint, format string, args ...any) error {
	name := "--" + flag
	if variable, ok := o.source[flag]; ok {
		name = variable
	}
	return &OptionError{Option: name, Err: fmt.Errorf(format, args...), Hint: hint}
}

// String says where etcd is looked for. It shows no password.
func (o *Options) String() string {
	switch {
	case o.Endpoints != "" && !strings.Contains(o.Endpoints, "@"):
		return o.Endpoints
	case o.DiscoverySRV != "":
		return "the SRV records of " + o.DiscoverySRV
	}
	return "localhost:" + defaultPort
}

// Given returns the flags that the user has given, each behind a blank, to be typed again in a
// shell. It leaves passwords out.
func (o *Options) Given() (given string) {
	o.own.VisitAll(func(f *pflag.Flag) {
		value := f.Value.String()
		switch {
		case !f.Changed, f.Name == "password":
			return
		case f.Name == "user":
			value, _, _ = strings.Cut(value, ":")
		case f.Name == "etcd" && strings.Contains(value, "@"): // which is refused
			return
		}
		given += typed(f, value)
	})
	return given
}

// typed returns a flag with a value behind a blank, to be typed in a shell.
func typed(f *pflag.Flag, value string) string {
	switch {
	case f.NoOptDefVal != "" && value == f.NoOptDefVal:
		return " --" + f.Name
	case f.Shorthand != "":
		return " -" + f.Shorthand + " " + plain.Shell(value)
	}
	return " --" + f.Name + "=" + plain.Shell(value)
}

// Config reads the files named and returns what a client needs. Every error about a setting is an
// *OptionError.
func (o *Options) Config() (clientv3.Config, error) {
	c := clientv3.Config{
		Logger: zap.NewNop(), // stderr is not the client's
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// The default grows to two minutes: a lock would be long lost when the next try is
			// made.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 750 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		})},
	}
	for _, step := range []func(*clientv3.Config) error{o.check, o.keepAlive, o.tls, o.login, o.where} {
		if err := step(&c); err != nil {
			return clientv3.Config{}, err
		}
	}
	return c, nil
}

// where fills in the endpoints, and with them whether TLS is used.
func (o *Options) where(c *clientv3.Config) (err error) {
	if c.Endpoints, err = o.find(o.asksTLS() != ""); err != nil {
		return err
	}
	// All of them are of one kind.
	if !usesTLS(c.Endpoints[0]) {
		c.TLS = nil
		return o.mayBePlain(c.Endpoints[0])
	}
	c.TLS = cmp.Or(c.TLS, systemTLS())
	return nil
}

// check returns an error about what must not be ignored: who has a variable empty in a script would
// be without TLS, or with another etcd.
func (o *Options) check(*clientv3.Config) error {
	for flag, value := range map[string]string{
		"cacert": o.CACert, "cert": o.Cert, "cert-key": o.Key, "password-file": o.PasswordFile, "auth-jwt-token-file": o.TokenFile,
		"discovery-srv": o.DiscoverySRV,
	} {
		if o.changed(flag) && value == "" {
			return o.bad(flag, "give it a value, or leave the option out", "it is empty")
		}
	}
	return o.unclear
}

// usesTLS reports whether an endpoint is reached with TLS.
func usesTLS(endpoint string) bool {
	return strings.HasPrefix(endpoint, "https:") || strings.HasPrefix(endpoint, "unixs:")
}

// mayBePlain returns an error if TLS was asked for, and an endpoint is without it. Where the
// records of a domain have named the endpoint, whoever answers for that domain would also be told
// the password or the token.
func (o *Options) mayBePlain(endpoint string) error {
	const hint = "or accept with --insecure-transport that everything is sent in the clear, password and token among it"
	switch asked := o.asksTLS(); {
	case o.InsecureTransport:
		return nil
	case asked != "":
		return o.bad(asked, "write https://, leave the TLS options out, "+hint, "it asks for TLS, and %q is without it", endpoint)
	case o.secret() != "" && o.discovers():
		return o.bad(o.secret(), "publish _etcd-client-ssl._tcp records, name etcd's address with -e, "+hint,
			"the SRV records of %q name %q, which is without TLS", o.DiscoverySRV, endpoint)
	}
	return nil
}

// asksTLS returns the flag of a setting that makes sense with TLS only, empty if none was given.
func (o *Options) asksTLS() string {
	switch {
	case o.CACert != "":
		return "cacert"
	case o.Cert != "":
		return "cert"
	case o.Key != "":
		return "cert-key"
	case o.InsecureSkipVerify:
		return "insecure-skip-tls-verify"
	case !o.InsecureTransport && (o.changed("insecure-transport") || o.source["insecure-transport"] != ""):
		return "insecure-transport"
	}
	return ""
}

// discovers reports whether the records of a domain name the endpoints.
func (o *Options) discovers() bool { return o.Endpoints == "" && o.DiscoverySRV != "" }

// find returns the endpoints.
func (o *Options) find(secure bool) ([]string, error) {
	if o.discovers() {
		return o.discover()
	}
	list := o.Endpoints
	if list == "" && !o.changed("etcd") {
		list = "localhost"
	}
	endpoints, err := Parse(list, secure)
	if err != nil {
		hint := "write host, host:port, https://host:port or unix:///path, several separated by commas"
		if strings.Contains(err.Error(), "credentials") {
			hint = "URLs show in process lists and logs: use --user with --password-file or ETCDCTL_PASSWORD"
		}
		return nil, o.bad("etcd", hint, "%w", err)
	}
	return endpoints, nil
}

// discover returns the endpoints that the records of a domain name.
func (o *Options) discover() ([]string, error) {
	clients, err := srv.GetClient("etcd-client", o.DiscoverySRV, o.DiscoverySRVName)
	if err != nil {
		return nil, o.bad("discovery-srv", "check the domain's SRV records, or name etcd's address with -e", "%w", err)
	}
	endpoints := preferTLS(clients.Endpoints)
	if !o.InsecureDiscovery && !usesTLS(endpoints[0]) {
		return nil, o.bad("insecure-discovery", "publish _etcd-client-ssl._tcp records, or name etcd's address with -e",
			"the SRV records of %q name %q alone, which is without TLS", o.DiscoverySRV, endpoints[0])
	}
	return endpoints, nil
}

// preferTLS returns the endpoints that are reached with TLS, if there are any, else all.
func preferTLS(endpoints []string) []string {
	if !slices.ContainsFunc(endpoints, usesTLS) {
		return endpoints
	}
	return slices.DeleteFunc(endpoints, func(e string) bool { return !usesTLS(e) })
}
