package main

import (
	"fmt"
	"testing"

	"github.com/etcdlock/etcdlock"
)

// TestLocksAreNamed: a message names one lock, or several, but not all of many.
func TestLocksAreNamed(t *testing.T) {
	var many keys
	for i := range 10 {
		many = append(many, fmt.Sprintf("/%d", i))
	}
	for n, want := range map[int]string{
		1:  `lock "/0" is released`,
		2:  `locks "/0" and "/1" are released`,
		3:  `locks "/0", "/1" and "/2" are released`,
		4:  `locks "/0", "/1", "/2" and 1 more are released`,
		10: `locks "/0", "/1", "/2" and 7 more are released`,
	} {
		if got := many[:n].released(); got != want {
			t.Errorf("%d keys: %s, want %s", n, got, want)
		}
	}
}

// TestList: what the command finds is understood by another etcdlocker, and has the form that is
// documented.
func TestList(t *testing.T) {
	all := keys{"/a<b>", "/no\xffutf8", "/é"}
	listAs := func(mode etcdlock.Mode) string {
		return all.list(func(key string) heldLock { return newHeldLock(key, int64(len(key)), mode, len(key)-3) })
	}
	list := listAs(etcdlock.Exclusive)
	const want = `[{"key":"/a<b>","token":5,"mode":"exclusive"},{"key_base64":"L25v/3V0Zjg=","token":8,"mode":"exclusive"},{"key":"/é","token":3,"mode":"exclusive"}]`
	if list != want {
		t.Errorf("it finds %s, want %s", list, want)
	}
	const slots = `[{"key":"/a<b>","token":5,"mode":"slots","slot":2},{"key_base64":"L25v/3V0Zjg=","token":8,"mode":"slots","slot":5},{"key":"/é","token":3,"mode":"slots","slot":0}]`
	if got := listAs(etcdlock.Slots(7)); got != slots {
		t.Errorf("of semaphores it finds %s, want %s", got, slots)
	}
	for _, key := range all {
		if !lists(list, key, int64(len(key))) || lists(list, key, int64(len(key))+1) {
			t.Errorf("%q is not told from others", key)
		}
	}
	for _, none := range []string{"", "[]", "/a", list[1:], `{"key":"/a"}`} {
		if lists(none, "/a", 0) || lists(none, "", 0) {
			t.Errorf("%q lists a lock", none)
		}
	}
}
