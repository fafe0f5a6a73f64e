package main

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/guard"
)

const ttlOfTest = time.Minute

// newTestHolder returns one that has a lock on an etcd of its own, and is about to run a command.
func newTestHolder(t *testing.T, run guard.Command) *holder {
	t.Helper()
	const ttl = ttlOfTest
	lock, err := etcdlock.New(etcdtest.Start(t).Client(t), "/holder", "one", ttl)
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{
		locker: &locker{
			options: &options{key: lock.Key(), ttl: ttl, grace: time.Second},
			voice:   &voice{w: os.Stderr},
			signals: make(chan os.Signal, 64),
		},
		lock: lock,
		run:  &command{path: "/bin/true", run: run},
	}
	if h.held, err = lock.Lock(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lock.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestValidUntil: the end of validity is one instant, however long it takes to ask for it.
func TestValidUntil(t *testing.T) {
	h := newTestHolder(t, nil)
	want, now := h.validUntil(), boottime.Now()
	if left := want.Sub(now); left > h.lock.Remaining()+ttlOfTest/2 || left < h.lock.Remaining() {
		t.Errorf("valid for %v and for %v", left, h.lock.Remaining())
	}
	for range 1000 {
		if got := h.validUntil(); got != want {
			t.Fatalf("valid until %d, and then until %d", want, got)
		}
	}
	if err := h.lock.Unlock(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left := h.validUntil().Until(); left > 0 {
		t.Errorf("valid for %v without the lock", left)
	}
}
