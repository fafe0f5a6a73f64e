package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// What is done when the time of --wait is over.
const (
	lookWithin = 3 * time.Second        // to see whether somebody else has the lock
	lookFirst  = 500 * time.Millisecond // for one answer, before it is asked for again
	lookPause  = 50 * time.Millisecond  // after nobody else has

	// lastWordWithin is for what is left to be taken back where that has taken long already: as
	// little as can be, as the end of a session is given a second at least. Otherwise the lease
	// takes it along.
	lastWordWithin = 250 * time.Millisecond
)

// A tooLateError says that the lock was not acquired in the time that --wait allows.
type tooLateError struct {
	wait    time.Duration
	since   time.Time // when it was over
	unknown error     // why it is not known that somebody else had the lock then; nil: it is
}

func (e *tooLateError) Error() string { return fmt.Sprintf("not acquired within %v", e.wait) }
func (e *tooLateError) Unwrap() error { return e.unknown }

// tooLate returns the tooLateError in an error, or nil.
func tooLate(err error) (late *tooLateError) {
	errors.As(err, &late)
	return late
}

var (
	errNotTaken = errors.New("nobody else was seen to hold it")
	errSilent   = fmt.Errorf("%w in time: whether somebody else holds it is not known", etcdlock.ErrNoAnswer)
)

// endInTime ends the wait when the time is over and it is known whether somebody else has the lock.
// If it is acquired meanwhile, that counts.
func (h *holder) endInTime(ctx context.Context) {
	if retry.Sleep(ctx, h.wait) {
		over := time.Now()
		h.endWait(&tooLateError{h.wait, over, h.lookForOthers(ctx)})
	}
}

// lookForOthers returns nil if somebody else has the lock, or stands before this process, and else
// why that is not known. It looks while this process still has its place in line: later, whoever
// has the lock may have got it from here.
func (h *holder) lookForOthers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	unknown := errSilent
	for {
		l, err := awaited(h.keys, func(key string) (line.Line, error) {
			return retry.Do(ctx, lookFirst, isDenied, func(ctx context.Context) (line.Line, error) { return line.Read(ctx, h.client, key) })
		})
		switch {
		case isDenied(err):
			return err
		case err != nil:
			return unknown
		case isTaken(l, h.mode):
			return nil
		}
		if unknown = errNotTaken; !retry.Sleep(ctx, lookPause) {
			return unknown
		}
	}
}

// withdraw leaves nothing in etcd, after a wait that has ended for a reason. Who has waited for one
// lock has tried to, and has said what is left.
func (h *holder) withdraw(why error) {
	limit := releaseLimit
	if late := tooLate(why); late != nil && time.Since(late.since) > releaseLimit {
		if len(h.keys) == 1 {
			return
		}
		limit = lastWordWithin
	}
	if left := h.close(limit); left != nil && len(h.keys) > 1 {
		h.voice.warnf("the places in line stay until their lease runs out, within %v", h.ttl)
	}
}

// isTaken reports whether others have the lock of a line, or stand in it before this process, so
// that who wants it in a mode does not get it.
func isTaken(l line.Line, mode etcdlock.Mode) bool {
	place, has := l.Stand(os.Getpid())
	if has {
		return false
	}
	behind := place > 1 || place == 0 && l.AreWaiting() // with 0 it would come behind all others
	isFree := mode == etcdlock.Shared && l.Shared || len(l.Holders) < max(l.Slots, 1)
	return behind || !isFree || l.Hand != nil
}
