package etcdlock_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/validity"
)

// TestMargin: validity ends as much sooner as Margin says, from the next renewal on, at most by an
// eighth of the TTL, and never before it would have ended without that renewal.
func TestMargin(t *testing.T) {
	t.Parallel()
	const ttl = 40 * time.Second
	lock := newLock(t, etcdtest.Shared(t).Client(t), "/margin", "one")
	lock.Session().TTL = ttl
	var margin atomic.Int64
	set := func(d time.Duration) { margin.Store(int64(d)) }
	lock.Session().Margin = func() time.Duration { return time.Duration(margin.Load()) }
	// renewed renews the lock, and returns when validity ends, counted from the earliest instant at
	// which the renewal can have been sent.
	renewed := func() (least, most time.Duration) {
		t.Helper()
		before := time.Now()
		mustLock(t, lock)
		remaining := lock.Holding().Remaining()
		return remaining, remaining + time.Since(before)
	}
	expect := func(what string, want time.Duration) {
		t.Helper()
		if least, most := renewed(); least > want || most < want {
			t.Errorf("%s: valid for %v to %v, want %v", what, least, most, want)
		}
	}
	usual := ttl - validity.Margin(ttl)
	expect("as usual", usual)

	before := lock.Holding().Remaining()
	set(time.Second)
	if after := lock.Holding().Remaining(); before-after > time.Second/2 {
		t.Errorf("it counted at once: %v were left, and then %v", before, after)
	}
	at := time.Now().Add(lock.Holding().Remaining())
	mustLock(t, lock)
	if sooner := time.Until(at) - lock.Holding().Remaining(); sooner > 10*time.Millisecond {
		t.Errorf("the end of validity moved back by %v", sooner)
	}
	// A second later it does not matter any more when it ended before.
	await(t, "a second", func() (bool, any) {
		left := time.Until(at)
		return left <= usual-time.Second-10*time.Millisecond, left
	})
	expect("with a second more", usual-time.Second)
	set(-time.Hour)
	expect("with a negative one", usual)
}

// TestMarginIsBounded: a margin of any size leaves most of the TTL.
func TestMarginIsBounded(t *testing.T) {
	t.Parallel()
	const ttl = 40 * time.Second
	lock := newLock(t, etcdtest.Shared(t).Client(t), "/margin/bounded", "one")
	lock.Session().TTL = ttl
	lock.Session().Margin = func() time.Duration { return time.Hour }
	before := time.Now()
	mustLock(t, lock)
	want := ttl - validity.Margin(ttl) - ttl/8
	if left := lock.Holding().Remaining(); left > want || left+time.Since(before) < want {
		t.Errorf("valid for %v, want %v", left, want)
	}
}
