package main

import (
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/duration"
)

func TestParseDuration(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"0": 0, "15": 15 * time.Second, "0.5": 500 * time.Millisecond, ".5": 500 * time.Millisecond, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
	} {
		if got, err := parseDuration(given{"--x", value}); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", value, got, err, want)
		}
	}
	for _, bad := range []string{"", "-1", "-0.5s", "abc", "1e3", "inf", "nan", "0x10", "1_000", "99999999999999", "5 s", "--", "1.2.3"} {
		if got, err := parseDuration(given{"--x", bad}); err == nil {
			t.Errorf("%q passed as %v", bad, got)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"15", "0.5", "1m30s", "-1", "abc", "9223372036.9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d, err := parseDuration(given{"--x", value})
		if err == nil && (d < 0 || d > duration.Max) {
			t.Errorf("%q passed as %v", value, d)
		}
	})
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
