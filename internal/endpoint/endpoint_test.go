package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock/internal/duration"
)

func TestParse(t *testing.T) {
	tests := []struct {
		list   string
		secure bool
		want   []string
	}{
		{"host", false, []string{"http://host:2379"}},
		{"host", true, []string{"https://host:2379"}},
		{"host:6666", false, []string{"http://host:6666"}},
		{"[::1]:1", false, []string{"http://[::1]:1"}},
		{"[::1]", false, []string{"http://[::1]:2379"}},
		{"::1", false, []string{"http://[::1]:2379"}},
		{"fe80::1%eth0", false, []string{"http://[fe80::1%25eth0]:2379"}},
		{"[fe80::1%eth0]", true, []string{"https://[fe80::1%25eth0]:2379"}},
		{"[fe80::1%25eth0]:1", false, []string{"http://[fe80::1%25eth0]:1"}},
		{"http://[fe80::1%25eth0.5]:1/", false, []string{"http://[fe80::1%25eth0.5]:1"}},
		{"https://[fe80::1%eth-0_a]", false, []string{"https://[fe80::1%25eth-0_a]:2379"}},
		{"https://h", false, []string{"https://h:2379"}},
		{"http://h:1/", true, []string{"http://h:1"}},
		{"a, b:1 ,", false, []string{"http://a:2379", "http://b:1"}},
		{"unix:///run/etcd.sock", false, []string{"unix:///run/etcd.sock"}},
		{"unix:///a%20b%2C%3F%23%25%22/%C3%A4,unix:///b", false, []string{"unix:///a%20b%2C%3F%23%25%22/%C3%A4", "unix:///b"}},
		// 101 bytes.
		{"unix:///" + strings.Repeat("%20", 100), false, []string{"unix:///" + strings.Repeat("%20", 100)}},
	}
	for _, tt := range tests {
		if got, err := Parse(tt.list, tt.secure); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("Parse(%q, %v) = %q, %v; want %q", tt.list, tt.secure, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", ",", "host:0", "host:99999", "host:x", "ftp://h", "http://h/path", "http://h?x", "http://u:p@h", "u:p@h",
		"http://[::1", "a b", "a\nb", "unix://relative", "unix:///" + strings.Repeat("x", 200), "unix:///a?b", "unix:///a#b", "unix:///a%b",
		"unix:///", "http://a,https://b", "http://", "::zz", "[fe80::1%]", "fe80::1%a%b", "[fe80::1%a/b]", "fe80::1%a!b", "127.0.0.1%lo", "host%lo", "http://h%25lo",
		"http://[fe80::1%25a%20b]"} {
		if got, err := Parse(bad, false); err == nil {
			t.Errorf("Parse(%q) = %q", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"host", "[::1]:1,b", "unix:///x", "https://h:1", "u:p@h", "http://[fe80::1%25lo]:1", "fe80::1%lo"} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, list string, secure bool) {
		got, err := Parse(list, secure)
		if err != nil {
			return
		}
		for _, e := range got {
			if _, err := url.Parse(e); err != nil || strings.ContainsFunc(e, unicode.IsControl) {
				t.Errorf("%q passed as %q: %v", list, e, err)
			}
		}
		if again, err := Parse(strings.Join(got, ","), secure); err != nil || !slices.Equal(again, got) {
			t.Errorf("%q came back as %q, %v", got, again, err)
		}
	})
}

// options reads words and variables as a command does.
func options(t *testing.T, env map[string]string, words ...string) *Options {
	t.Helper()
	var o Options
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.AddFlags(f)
	if err := f.Parse(words); err != nil {
		t.Fatal(err)
	}
	o.FromEnv(func(name string) string { return env[name] })
	return &o
}

func TestWhoWins(t *testing.T) {
	all := map[string]string{"ETCD_LOCK_HOST": "lock-host", "ETCDCTL_ENDPOINTS": "ctl", "ETCDCTL_USER": "u:p"}
	tests := []struct {
		env   map[string]string
		words []string
		want  string
	}{
		{nil, nil, "http://localhost:2379"},
		{all, []string{"-e", "flag"}, "http://flag:2379"},
		{all, nil, "http://lock-host:2379"},
		{map[string]string{"ETCD_LOCK_HOST": "", "ETCDCTL_ENDPOINTS": "ctl"}, nil, "http://ctl:2379"},
		{map[string]string{"ETCD_LOCK_HOST": "outer", Held: "outer"}, nil, "http://outer:2379"},
		{map[string]string{"ETCD_LOCK_HOST": "outer", Held: "outer", "ETCDCTL_ENDPOINTS": "ctl"}, nil, "http://ctl:2379"},
		{map[string]string{"ETCD_LOCK_HOST": "mine", Held: "outer", "ETCDCTL_ENDPOINTS": "ctl"}, nil, "http://mine:2379"},
		{map[string]string{Held: "outer"}, nil, "http://localhost:2379"},
	}
	for _, tt := range tests {
		c, err := options(t, tt.env, tt.words...).Config()
		if err != nil || c.Endpoints[0] != tt.want {
			t.Errorf("%v %v: %v, %v", tt.env, tt.words, c.Endpoints, err)
		}
	}
	c, err := options(t, all).Config()
	if err != nil || c.Username != "u" || c.Password != "p" {
		t.Errorf("user %q, %v", c.Username, err)
	}
}

func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("pass word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := options(t, nil, "--user", "u", "--password-file", file).Config()
	if err != nil || c.Password != "pass word" {
		t.Errorf("%q, %v", c.Password, err)
	}
	for _, words := range [][]string{
		{"--user", "u"}, {"--password", "secret"}, {"--user", "u:secret", "--password", "secret"},
		{"--user", "u", "--password", "secret", "--password-file", file}, {"--user", "u", "--password-file", os.DevNull}, {"--user", "u", "--password-file", "/none"},
	} {
		_, err := options(t, nil, words...).Config()
		var option *OptionError
		if !errors.As(err, &option) || option.Hint == "" || strings.Contains(err.Error()+option.Hint, "secret") {
			t.Errorf("%v: %v", words, err)
		}
	}
}

// TestWhoAsks: flags beat variables, and a token beats a user.
func TestWhoAsks(t *testing.T) {
	all := map[string]string{"ETCDCTL_AUTH_JWT_TOKEN": "a.b.c", "ETCDCTL_USER": "u", "ETCDCTL_PASSWORD": "p"}
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{nil, "a.b.c"},
		{[]string{"--user", "v:q"}, "v:q"},
		{[]string{"--user", "v"}, "v:p"},
		{[]string{"--password", "q"}, "u:q"},
	} {
		c, err := options(t, all, tt.words...).Config()
		got := c.Token
		if c.Username != "" {
			got += c.Username + ":" + c.Password
		}
		if err != nil || got != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.words, got, err, tt.want)
		}
	}
	for _, token := range []string{" ", "a.secret c", "a.secret\nc", "a.secr\u00e9t.c", "\x00"} {
		_, err := options(t, map[string]string{"ETCDCTL_AUTH_JWT_TOKEN": token}).Config()
		if err == nil || strings.Contains(err.Error(), "secr") {
			t.Errorf("%q: %v", token, err)
		}
	}
}

// TestTokenFile: the file is read again for each request, and counts while a token is in it.
func TestTokenFile(t *testing.T) {
	f := &tokenFile{name: filepath.Join(t.TempDir(), "token"), last: "x.y.z"}
	for _, tt := range []struct{ content, want string }{
		{"a.b.c", "a.b.c"}, {" d.e.f\r\n", "d.e.f"}, {"", "d.e.f"}, {"a b", "d.e.f"}, {"g.h.i\n", "g.h.i"},
	} {
		if err := os.WriteFile(f.name, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := f.GetRequestMetadata(t.Context()); err != nil || got["token"] != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.content, got, err, tt.want)
		}
	}
	if err := os.Remove(f.name); err != nil {
		t.Fatal(err)
	}
	if got, err := f.GetRequestMetadata(t.Context()); err != nil || got["token"] != "g.h.i" {
		t.Errorf("no file: %q, %v", got, err)
	}
}

// TestTimes: which of flag, variable and default counts.
func TestTimes(t *testing.T) {
	env := func(interval, timeout, dial string) map[string]string {
		return map[string]string{"ETCDCTL_KEEPALIVE_TIME": interval, "ETCDCTL_KEEPALIVE_TIMEOUT": timeout, "ETCDCTL_DIAL_TIMEOUT": dial}
	}
	const standard = 5 * time.Second
	for _, tt := range []struct {
		env                     map[string]string
		words                   []string
		interval, timeout, dial time.Duration
	}{
		{env("", "", ""), nil, 10 * time.Second, 5 * time.Second, standard},
		{env("1m", "30s", "20s"), nil, time.Minute, 30 * time.Second, 20 * time.Second},
		{env("90", "0.5", "7"), nil, 90 * time.Second, 500 * time.Millisecond, 7 * time.Second},
		{env("0", "0", "0"), nil, 0, 0, duration.Max},
		{env("1m", "30s", "1ms"), []string{"--keepalive-time", "2m", "--keepalive-timeout", "9"}, 2 * time.Minute, 9 * time.Second, standard},
	} {
		o := options(t, tt.env, tt.words...)
		c, err := o.Config()
		dial, err2 := o.ConnectTimeout(standard)
		if err != nil || err2 != nil || c.DialKeepAliveTime != tt.interval || c.DialKeepAliveTimeout != tt.timeout || dial != tt.dial {
			t.Errorf("%v %q: %v, %v, %v, %v, %v", tt.env, tt.words, c.DialKeepAliveTime, c.DialKeepAliveTimeout, dial, err, err2)
		}
	}
	for _, bad := range []map[string]string{env("x", "", ""), env("", "-1s", "")} {
		if _, err := options(t, bad).Config(); err == nil {
			t.Errorf("%v passed", bad)
		}
	}
	if _, err := options(t, env("", "", "1e9h")).ConnectTimeout(standard); err == nil {
		t.Error("1e9h passed")
	}
}

// TestNoTLS: who asks for TLS does not get a connection without it, unless that is said.
func TestNoTLS(t *testing.T) {
	cert := writeCert(t)
	plain := []string{"-e", "http://h"}
	tests := []struct {
		env   map[string]string
		words []string
		says  string // empty: it is allowed
	}{
		{nil, append(plain, "--cacert", cert), `--cacert: it asks for TLS, and "http://h:2379" is without it`},
		{map[string]string{"ETCDCTL_CACERT": cert}, plain, "ETCDCTL_CACERT: "},
		{nil, append(plain, "--insecure-skip-tls-verify"), "--insecure-skip-tls-verify: "},
		{map[string]string{"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "true"}, plain, "ETCDCTL_INSECURE_SKIP_TLS_VERIFY: "},
		{map[string]string{"ETCDCTL_INSECURE_TRANSPORT": "false"}, plain, "ETCDCTL_INSECURE_TRANSPORT: "},
		{nil, append(plain, "--insecure-transport=false"), "--insecure-transport: "},
		{nil, []string{"--cacert", cert, "-e", "unix:///s"}, "--cacert: "},
		{nil, append(plain, "--cacert", cert, "--insecure-transport"), ""},
		{map[string]string{"ETCDCTL_INSECURE_TRANSPORT": "true"}, append(plain, "--cacert", cert), ""},
		{map[string]string{"ETCDCTL_INSECURE_TRANSPORT": "true"}, append(plain, "--cacert", cert, "--insecure-transport=false"), "--cacert: "},
		{map[string]string{"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "false"}, plain, ""},
		// A variable in a script that is not set.
		{nil, append(plain, "--cacert", ""), "--cacert: it is empty"},
		{map[string]string{"ETCDCTL_CACERT": cert}, append(plain, "--cacert", ""), "--cacert: it is empty"},
		{nil, append(plain, "--cert", "", "--cert-key", ""), "--cert"},
		{nil, append(plain, "--user", "u:p", "--password-file", ""), "--password-file: it is empty"},
		{nil, []string{"--discovery-srv", ""}, "--discovery-srv: it is empty"},
		{map[string]string{"ETCDCTL_INSECURE_TRANSPORT": "off"}, plain, `ETCDCTL_INSECURE_TRANSPORT: "off" is neither true nor false`},
		{map[string]string{"ETCDCTL_INSECURE_TRANSPORT": " false"}, plain, "ETCDCTL_INSECURE_TRANSPORT: "},
		{map[string]string{"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "yes"}, plain, "ETCDCTL_INSECURE_SKIP_TLS_VERIFY: "},
		{map[string]string{"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "yes"}, append(plain, "--insecure-skip-tls-verify=false"), ""},
		{map[string]string{"ETCDCTL_CACERT": "", "ETCDCTL_INSECURE_TRANSPORT": ""}, plain, ""},
		{nil, append(plain, "--user", "u:p"), ""}, // etcd's own users, on a network that is trusted
	}
	for _, tt := range tests {
		c, err := options(t, tt.env, tt.words...).Config()
		switch {
		case tt.says == "" && (err != nil || c.TLS != nil):
			t.Errorf("%v %v: %v, %v", tt.env, tt.words, c.TLS, err)
		case tt.says != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.says)):
			t.Errorf("%v %v: %v, want %s", tt.env, tt.words, err, tt.says)
		}
	}
	for _, env := range []map[string]string{{"ETCDCTL_INSECURE_TRANSPORT": "false"}, {"ETCDCTL_CACERT": cert}} {
		if c, err := options(t, env, "-e", "h").Config(); err != nil || c.TLS == nil || c.Endpoints[0] != "https://h:2379" {
			t.Errorf("%v: %v, %v, %v", env, c.Endpoints, c.TLS, err)
		}
	}
}

// TestDiscoveredWithoutTLS: a password does not go in the clear to whoever answers for a domain.
func TestDiscoveredWithoutTLS(t *testing.T) {
	o := options(t, nil, "--discovery-srv", "example.org", "--user", "u:p")
	if err := o.mayBePlain("http://h:2379"); err == nil || !strings.Contains(err.Error(), `--user: the SRV records of "example.org" name "http://h:2379"`) {
		t.Errorf("it says %v", err)
	}
	o.InsecureTransport = true
	if err := o.mayBePlain("http://h:2379"); err != nil {
		t.Error(err)
	}
	if got := preferTLS([]string{"http://a", "https://b", "http://c"}); !slices.Equal(got, []string{"https://b"}) {
		t.Errorf("of both it takes %v", got)
	}
}

// writeCert returns the name of a file with a certificate.
func writeCert(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestGiven: what the user has given can be typed again, but for passwords.
func TestGiven(t *testing.T) {
	o := options(t, map[string]string{"ETCDCTL_CERT": "cert.pem"}, "--etcd", "a b:1", "--user=me:secret", "--password", "secret", "--insecure-transport", "--cacert=ca.pem")
	if got, want := o.Given(), ` --cacert=ca.pem -e 'a b:1' --insecure-transport --user=me`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got, want := options(t, nil, "--user=", "--insecure-transport=false").Given(), ` --insecure-transport=false --user=''`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// TestEmbedded: the embedded etcd is that of the user, or of a directory, and no other one is named
// beside it. What the user has given of it can be typed again.
func TestEmbedded(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	variables := map[string]string{"ETCD_LOCK_HOST": "elsewhere", "ETCDCTL_DISCOVERY_SRV": "example.com"}
	for _, tt := range []struct{ args, dir, given, fault string }{
		{"", "", "", ""},
		{"--embedded", "/state/etcdlock/etcd", " --embedded", ""},
		{"--embedded=etcd", "etcd", " --embedded=etcd", ""},
		{"--embedded=", "", "", "name is empty"},
		{"--embedded --etcd=host", "", "", "it and --etcd name two different servers"},
		{"--discovery-srv=example.com --embedded", "", "", "it and --discovery-srv name two different servers"},
	} {
		o := options(t, variables, strings.Fields(tt.args)...)
		dir, err := o.Embedded()
		if dir != tt.dir || (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: %q, %v", tt.args, dir, err)
		}
		if got := o.Given(); err == nil && got != tt.given {
			t.Errorf("%s: given is %q", tt.args, got)
		}
	}
}
