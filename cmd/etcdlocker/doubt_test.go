package main

import (
	"context"
	"testing"

	"github.com/etcdlock/etcdlock"
)

func TestIsDoubt(t *testing.T) {
	for cause, want := range map[error]bool{
		&etcdlock.LostError{Reason: etcdlock.Unrenewed}:  true,
		&etcdlock.LostError{Reason: etcdlock.KeyDeleted}: false,
		context.Canceled: false,
		nil:              false,
	} {
		if got := isDoubt(cause); got != want {
			t.Errorf("%v: %v", cause, got)
		}
	}
}
