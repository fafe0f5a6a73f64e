package users

import (
	"context"
	"testing"
)

// TestAfterLast: what is to be done after the last user is done once, be it that nobody is there
// already, and nobody comes after it.
func TestAfterLast(t *testing.T) {
	for _, n := range []int{0, 2} {
		var u Users
		for range n {
			if !u.Use() {
				t.Fatal("it has ended before its end was asked for")
			}
		}
		calls := 0
		u.AfterLast(func() { calls++ })
		for range n {
			if calls > 0 {
				t.Error("it has ended with a user")
			}
			u.Done()
		}
		if calls != 1 || u.Use() {
			t.Errorf("%d users: ended %d times", n, calls)
		}
		u.Done()
		if calls != 1 {
			t.Error("it has ended twice")
		}
	}
}

// TestAwait: the wait for the last user ends with ctx, and whoever has gone before that counts.
func TestAwait(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 { // select picks at random
		var u Users
		u.Use()
		if u.Await(ended) {
			t.Error("a user has not been there")
		}
		var nobody Users
		if !nobody.Await(ended) {
			t.Error("nobody is taken for somebody")
		}
	}
	var u Users
	u.Use()
	go u.Done()
	if !u.Await(context.Background()) {
		t.Error("the last user has not gone")
	}
}
