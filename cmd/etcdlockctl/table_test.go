package main

import (
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/admin"
)

// TestHeld: where it is not known since when a lock is held, what is shown is more than the time
// since its holder joined the line.
func TestHeld(t *testing.T) {
	now := time.Now()
	table := newTable(false, now)
	for since, want := range map[time.Duration][2]string{
		-500 * time.Millisecond:         {"0s", "<1s"}, // another host's clock
		0:                               {"0s", "<1s"},
		4900 * time.Millisecond:         {"4s", "<5s"},
		59*time.Minute + 59*time.Second: {"59m59s", "<1h0m"},
		61*time.Minute + time.Second:    {"1h1m", "<1h2m"},
		23*time.Hour + 59*time.Minute:   {"23h59m", "<1d0h"},
		25*time.Hour + time.Second:      {"1d1h", "<1d2h"},
		-2 * time.Second:                {"-", "-"},
	} {
		var exact, joined admin.Holder
		exact.Acquired, joined.Joined = now.Add(-since), now.Add(-since)
		if got := [2]string{table.held(exact), table.held(joined)}; got != want {
			t.Errorf("%v: %q, want %q", since, got, want)
		}
	}
	if got := table.held(admin.Holder{}); got != "-" {
		t.Errorf("not known: %q", got)
	}
}
