package endpoint

import (
	"errors"
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
	}
	for _, tt := range tests {
		if got, err := Parse(tt.list, tt.secure); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("Parse(%q, %v) = %q, %v; want %q", tt.list, tt.secure, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", ",", "host:0", "host:99999", "host:x", "ftp://h", "http://h/path", "http://h?x", "http://u:p@h", "u:p@h",
		"http://[::1", "a b", "a\nb", "unix://relative", "unix:///" + strings.Repeat("x", 200), "http://a,https://b", "http://", "::zz"} {
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
