package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/guard"
)

// newTestHolder returns one that has a lock on an etcd of its own, and is about to run a command.
func newTestHolder(t *testing.T, run guard.Command) *holder {
	t.Helper()
	const ttl = time.Minute
	lock, err := etcdlock.New(etcdtest.Start(t).Client(t), "/holder", "one", ttl)
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{
		locker: &locker{
			options: &options{keys: keys{lock.Key()}, ttl: ttl, grace: time.Second},
			voice:   &voice{w: os.Stderr},
			signals: make(chan os.Signal, 64),
		},
		lock: single{lock},
		run:  &command{path: "/bin/true", run: run},
	}
	if h.held, err = h.lock.acquire(etcdtest.Context(t), false); err != nil {
		t.Fatal(err)
	}
	h.work = h.held.Context(context.Background())
	t.Cleanup(func() {
		if err := lock.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestValidUntil: the end of validity is never put too late, and too early only by a stall.
func TestValidUntil(t *testing.T) {
	h := newTestHolder(t, nil)
	early := time.Hour // the least of all
	for range 1000 {
		until := h.validUntil()
		before, left, after := boottime.Now(), h.held.Remaining(), boottime.Now()
		if late := until.Sub(after.Add(left)); late > 0 {
			t.Fatalf("it is put %v later than it is", late)
		}
		early = min(early, before.Add(left).Sub(until))
	}
	if early > time.Millisecond {
		t.Errorf("it is put %v earlier than it is, at best", early)
	}
	if err := h.close(releaseLimit); err != nil {
		t.Fatal(err)
	}
	if left := h.validUntil().Until(); left > 0 {
		t.Errorf("valid for %v without the lock", left)
	}
}

// TestUnrenewed: why renewals failed decides what may help.
func TestUnrenewed(t *testing.T) {
	for _, tt := range []struct {
		user string
		err  error
		says string
	}{
		{"worker", rpctypes.ErrInvalidAuthToken, "the next one took too long"},
		{"", rpctypes.ErrInvalidAuthToken, "write new ones into the file"},
		{"worker", rpctypes.ErrAuthFailed, "lets this user no more"},
		{"worker", context.DeadlineExceeded, "did not answer in time"},
	} {
		var said strings.Builder
		h := &holder{locker: &locker{voice: &voice{w: &said}}, client: &clientv3.Client{Username: tt.user}}
		h.sayUnrenewed(tt.err)
		h.voice.flushWithin(time.Minute)
		if !strings.Contains(said.String(), tt.says) {
			t.Errorf("user %q, %v: it says %q", tt.user, tt.err, &said)
		}
	}
}
