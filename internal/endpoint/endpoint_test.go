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
	"unicode"

	"github.com/spf13/pflag"
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
		{"https://h", false, []string{"https://h:2379"}},
		{"http://h:1/", true, []string{"http://h:1"}},
		{"a, b:1 ,", false, []string{"http://a:2379", "http://b:1"}},
		{"unix:///run/etcd.sock", false, []string{"unix:///run/etcd.sock"}},
		{"unix:///a%20b%2C%3F%23%25%22/%C3%A4,unix:///b", false, []string{"unix:///a%20b%2C%3F%23%25%22/%C3%A4", "unix:///b"}},
		{"unix:///" + strings.Repeat("%20", 100), false, []string{"unix:///" + strings.Repeat("%20", 100)}}, // 101 bytes
	}
	for _, tt := range tests {
		if got, err := Parse(tt.list, tt.secure); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("Parse(%q, %v) = %q, %v; want %q", tt.list, tt.secure, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", ",", "host:0", "host:99999", "host:x", "ftp://h", "http://h/path", "http://h?x", "http://u:p@h", "u:p@h",
		"http://[::1", "a b", "a\nb", "unix://relative", "unix:///" + strings.Repeat("x", 200), "unix:///a?b", "unix:///a#b", "unix:///a%b",
		"unix:///", "http://a,https://b", "http://", "::zz"} {
		if got, err := Parse(bad, false); err == nil {
			t.Errorf("Parse(%q) = %q", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"host", "[::1]:1,b", "unix:///x", "https://h:1", "u:p@h"} {
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
