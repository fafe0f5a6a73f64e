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

// TestValidUntil: the end of validity is never put too late, and too early by 1 ms at most.
func TestValidUntil(t *testing.T) {
	h := newTestHolder(t, nil)
	for range 1000 {
		until, least := h.validUntil(), boottime.Now().Add(h.lock.Remaining())
		if most := least.Add(time.Millisecond); until > most || until < least.Add(-time.Second) {
			t.Fatalf("it is put %v later than it is", until.Sub(least))
		}
	}
	if err := h.lock.Unlock(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left := h.validUntil().Until(); left > 0 {
		t.Errorf("valid for %v without the lock", left)
	}
}
