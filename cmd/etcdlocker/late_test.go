package main

import (
	"testing"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/line"
)

// TestIsTaken: who holds a lock in a way that leaves room for this process is not in its way, even
// if its own place is gone.
func TestIsTaken(t *testing.T) {
	holders := func(n int) []line.Holder { return make([]line.Holder, n) }
	for name, tt := range map[string]struct {
		line line.Line
		mode etcdlock.Mode
		want bool
	}{
		"free":                   {line.Line{}, etcdlock.Exclusive, false},
		"held":                   {line.Line{Holders: holders(1)}, etcdlock.Exclusive, true},
		"held, to be shared":     {line.Line{Holders: holders(1)}, etcdlock.Shared, true},
		"shared":                 {line.Line{Holders: holders(2), Shared: true}, etcdlock.Exclusive, true},
		"shared, to be shared":   {line.Line{Holders: holders(2), Shared: true}, etcdlock.Shared, false},
		"a slot is free":         {line.Line{Holders: holders(2), Slots: 3}, etcdlock.Exclusive, false},
		"all slots are taken":    {line.Line{Holders: holders(3), Slots: 3}, etcdlock.Exclusive, true},
		"by hand":                {line.Line{Hand: &holders(1)[0]}, etcdlock.Exclusive, true},
		"by hand, beside others": {line.Line{Hand: &holders(1)[0], Holders: holders(1), Shared: true}, etcdlock.Shared, true},
	} {
		if got := isTaken(tt.line, tt.mode); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
