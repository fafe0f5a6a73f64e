package main

import (
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/duration"
)

func TestParseDuration(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"0": 0, "15": 15 * time.Second, "0.5": 500 * time.Millisecond, ".5": 500 * time.Millisecond, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
	} {
		if got, err := parseDuration(given{"--x", value}, ""); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", value, got, err, want)
		}
	}
	for _, bad := range []string{"", "-1", "-0.5s", "abc", "1e3", "inf", "nan", "0x10", "1_000", "99999999999999", "5 s", "--", "1.2.3"} {
		if got, err := parseDuration(given{"--x", bad}, ""); err == nil {
			t.Errorf("%q passed as %v", bad, got)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"15", "0.5", "1m30s", "-1", "abc", "9223372036.9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d, err := parseDuration(given{"--x", value}, "")
		if err == nil && (d < 0 || d > duration.Max) {
			t.Errorf("%q passed as %v", value, d)
		}
	})
}

// TestHintsOfTimes: what the hints of times say can be written.
func TestHintsOfTimes(t *testing.T) {
	parse := func(option, value string) error {
		_, err := parseOptions([]string{"-k", "/k", option + "=" + value, "true"}, func(string) string { return "" })
		return err
	}
	for _, option := range []string{"--ttl", "--refresh", "--grace", "--wait", "--hold-at-least", "--kill-after", "--connect-timeout", "--watchdog"} {
		for _, bad := range []string{"", "abc"} {
			_, as, ok := strings.Cut(hintOf(parse(option, bad)), ", as in ")
			if !ok {
				t.Errorf("%s %q: the hint shows no example: %q", option, bad, hintOf(parse(option, bad)))
			}
			for _, word := range strings.FieldsFunc(as, func(r rune) bool { return strings.ContainsRune(" ,;", r) }) {
				if _, err := duration.Parse(word); err != nil || option == "--refresh" || option == "--grace" {
					continue // these must fit the TTL
				}
				if err := parse(option, word); err != nil {
					t.Errorf("%s %q: the hint leads to %v", option, bad, err)
				}
			}
		}
	}
}

// TestNoGrace: a grace of 0 is no grace, and not the default, which 0 means in a Lock.
func TestNoGrace(t *testing.T) {
	for _, tt := range []struct {
		refresh string
		fits    bool
	}{{"58", true}, {"59.59", true}, {"59.590001", false}} {
		o, err := parseOptions([]string{"-k", "/k", "-t", "60", "-r", tt.refresh, "--grace", "0", "true"}, func(string) string { return "" })
		if (err == nil) != tt.fits {
			t.Errorf("refresh interval %s: %v", tt.refresh, err)
		}
		if err == nil && (o.grace <= 0 || o.grace > time.Microsecond) {
			t.Errorf("a grace of %v", o.grace)
		}
		if err != nil && !strings.Contains(err.Error(), "a grace of 0s ") {
			t.Error(err)
		}
	}
}

// TestModes: options say how the locks are held, and variables do where the key comes from one.
func TestModes(t *testing.T) {
	const shared, slots = "ETCD_LOCK_SHARED=", "ETCD_LOCK_SLOTS="
	for _, tt := range []struct {
		args, vars string // ETCD_LOCK_KEY is there as well
		want       etcdlock.Mode
		wrong      string // or what is said
	}{
		{"", "", etcdlock.Exclusive, ""},
		{"--slots 3", "", etcdlock.Slots(3), ""},
		{"--slots 3 --slots=1000", "", etcdlock.Slots(1000), ""},
		{"--slots 1", "", etcdlock.Exclusive, ""},
		{"-k /a -k /b --slots 2", "", etcdlock.Slots(2), ""},
		{"", slots + "3", etcdlock.Slots(3), ""},
		{"", slots + "3 " + shared + "0", etcdlock.Slots(3), ""},
		{"", slots + " " + shared + "1", etcdlock.Shared, ""},
		{"", slots + "1", etcdlock.Exclusive, ""},
		{"-k /a", slots + "3", etcdlock.Exclusive, ""},
		{"-k /a", slots + "x " + shared + "x", etcdlock.Exclusive, ""},
		{"-s", slots + "3", etcdlock.Shared, ""},
		{"-x", slots + "3 " + shared + "1", etcdlock.Exclusive, ""},
		{"--slots 4", slots + "3 " + shared + "1", etcdlock.Slots(4), ""},
		{"", slots + "3 " + shared + "1", 0, "ETCD_LOCK_SHARED and ETCD_LOCK_SLOTS are two ways to hold the lock"},
		{"-s --slots 3", "", 0, "--shared and --slots are two ways to hold the lock"},
		{"--slots 3 -s", "", 0, "--shared and --slots"},
		{"-x --slots 3", "", 0, "--exclusive and --slots"},
		{"--slots 3 -x", "", 0, "--exclusive and --slots"},
		{"-s -x --slots 1", "", 0, "--slots are two ways"},
		{"--slots 0", "", 0, `--slots: "0" is not a number from 1 to 1000`},
		{"--slots 1001", "", 0, `--slots: "1001" is not`},
		{"--slots -1", "", 0, `--slots: "-1" is not`},
		{"--slots x", "", 0, `--slots: "x" is not`},
		{"--slots=", "", 0, `--slots: "" is not`},
		{"-k /a -k /b --slots 0", "", 0, `--slots: "0" is not`},
		{"", slots + "0", 0, `ETCD_LOCK_SLOTS: "0" is not a number from 1 to 1000`},
	} {
		env := map[string]string{"ETCD_LOCK_KEY": "/k"}
		for _, kv := range strings.Fields(tt.vars) {
			name, value, _ := strings.Cut(kv, "=")
			env[name] = value
		}
		o, err := parseOptions(append(strings.Fields(tt.args), "true"), func(name string) string { return env[name] })
		switch {
		case tt.wrong == "" && (err != nil || o.mode != tt.want):
			t.Errorf("%q, %q: %v, want %v", tt.args, tt.vars, err, tt.want)
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong) || codeOf(err) != exitUsage || hintOf(err) == ""):
			t.Errorf("%q, %q: %v, want %q", tt.args, tt.vars, err, tt.wrong)
		}
	}
}

// TestNoKey: where a -k stands behind the command it is said where it belongs, unless a -- before
// the command says that it is the command's.
func TestNoKey(t *testing.T) {
	for words, way := range map[string]string{
		"curl -k https://x":    "-k stands after the command, which begins with curl",
		"-- curl -k https://x": "name it with -k, or in ETCD_LOCK_KEY",
	} {
		_, err := parseOptions(strings.Fields(words), func(string) string { return "" })
		if err == nil || !strings.HasPrefix(hintOf(err), way) {
			t.Errorf("%s: %v, %q", words, err, hintOf(err))
		}
	}
}

// TestSeparated: the word behind an option is its value, but not if that is -- or an option. Who
// means it says so in one word.
func TestSeparated(t *testing.T) {
	for _, words := range []string{
		"-k --try", "-k -k /x", "-vk -s", "-k --", "-k /x -i --wait=5", "-k /x --why --verbose", "-k /x -e -v", "-k --try -- cmd",
		"-k -t5 -- cmd", "-k -sv", "-k -s/x", "-k /x -i -k/y",
	} {
		_, err := parseOptions(strings.Fields(words), func(string) string { return "" })
		if err == nil || !strings.Contains(err.Error(), "its value is -") || !strings.Contains(hintOf(err), "is what you mean, --") {
			t.Errorf("%s: %v, %q", words, err, hintOf(err))
		}
	}
	for _, words := range []string{"-k --password=hunter2 -- cmd", "-k --user=root:hunter2", "-k /x --password --key=hunter2", "-k /x --user --why=hunter2"} {
		_, err := parseOptions(strings.Fields(words), func(string) string { return "" })
		if err == nil || !strings.Contains(err.Error(), "=..., an option") || strings.Contains(err.Error()+hintOf(err), "hunter2") {
			t.Errorf("%s: %v, %q", words, err, hintOf(err))
		}
	}
	for words, key := range map[string]string{
		"--key=--try": "--try", "-k--try": "--try", "-k=-s": "-s", "--key=-- -- cmd": "--", "-k --tr": "--tr", "-k -": "-", "-k -5": "-5",
		"-k /x --password -secret --user u": "/x", "-k /x --password -s=ecret --user u": "/x", "-k /x --why -note": "/x",
		"-vk/x -sx --try -- cmd -k --try": "/x", "-k/x -ik --try": "/x", "-k /x --verbose=1 -s": "/x", "-k /x -v=1 -s cmd -k -k": "/x",
	} {
		o, err := parseOptions(strings.Fields(words), func(string) string { return "" })
		if err != nil || o.keys[0] != key {
			t.Errorf("%s: %v", words, err)
		}
	}
}
