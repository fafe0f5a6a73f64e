package main

import (
	"context"
	"errors"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/boottime"
)

// watchDoubt says when the lock will be lost unless it is renewed within the grace, and when it has
// been renewed after all. It ends when quit is closed, or when it is too late.
func (h *holder) watchDoubt(quit <-chan struct{}) <-chan bool {
	doubt := make(chan bool)
	go func() {
		timer := boottime.NewTimer()
		defer timer.Close()
		tell := func(in bool) bool {
			select {
			case doubt <- in:
				return true
			case <-quit:
				return false
			}
		}
		for in := false; ; {
			// The end of the grace is the keeper's business, its beginning ours.
			if begins := h.validUntil().Add(-h.grace); begins.Until() > 0 {
				if in && !tell(false) {
					return
				}
				if in {
					h.voice.notef("%s %s renewed, the command goes on", h.keys.locks(), h.keys.form("is", "are"))
				}
				in = false
				timer.Reset(begins)
			} else if !in {
				if !tell(true) {
					return
				}
				h.voice.warnf("%s could not be renewed; the command stands still until %s, or dies in %v", h.keys.locks(), h.keys.form("it is", "they are"), h.grace)
				in = true
			}
			select {
			case <-timer.C:
			case <-h.renewed:
			case <-h.held.Expired():
				return
			case <-quit:
				return
			}
		}
	}()
	return doubt
}

// lostOtherwise returns what is closed when the lock is lost for another reason than that it was
// not renewed.
func (h *holder) lostOtherwise(quit <-chan struct{}) <-chan struct{} {
	lost := make(chan struct{})
	go func() {
		select {
		case <-h.work.Done():
			if !isDoubt(context.Cause(h.work)) {
				close(lost)
			}
		case <-quit:
		}
	}()
	return lost
}

// isDoubt reports whether a lock was lost because it was not renewed. What stands still for that is
// killed when validity ends, and must not be asked to end before: it would have to go on for it.
func isDoubt(cause error) bool {
	var lost *etcdlock.LostError
	return errors.As(cause, &lost) && lost.Reason == etcdlock.Unrenewed
}
