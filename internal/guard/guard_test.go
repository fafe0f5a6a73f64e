package guard

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/validity"
)

// TestExtra: it grows with what it is for, and beyond what a TTL has room for only with a lot of
// it.
func TestExtra(t *testing.T) {
	extra := func(wakeUp, walk time.Duration, processes int) time.Duration {
		return Measure{wakeUp, walk, processes}.Extra()
	}
	if one, more := extra(0, 0, 1), extra(0, 0, 2500); more < one+19*time.Millisecond {
		t.Errorf("%v for one process, %v for 2,500", one, more)
	}
	if quick, slow := extra(0, 0, 1), extra(20*time.Millisecond, 0, 1); slow < quick+40*time.Millisecond {
		t.Errorf("%v without a wait, %v with 20 ms", quick, slow)
	}
	if quick, slow := extra(0, 0, 1), extra(0, 20*time.Millisecond, 1); slow < quick+120*time.Millisecond {
		t.Errorf("%v without a walk, %v with one of 20 ms", quick, slow)
	}
	if usual := extra(time.Millisecond, time.Millisecond, 10); usual > validity.MaxExtra(2*time.Second, time.Second, time.Second/2) {
		t.Errorf("%v for an ordinary command, which is too much for a TTL of 2 s", usual)
	}
}

// TestOrderArrives: what an order says comes back from its message.
func TestOrderArrives(t *testing.T) {
	for _, o := range []Order{
		{Env: nil},
		{ValidUntil: 1, Allowed: 2, Ahead: 3, By: 4, Lease: 5, Env: []string{"A=1", "B="}, Checks: true, NoTimers: true,
			Ignored: []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, 64}, mask: 1 << 63, pgid: 6, first: 7, interpreter: "node", path: "/bin/true"},
	} {
		got, err := parseOrder(o.message(start))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(o) {
			t.Errorf("%+v arrives as %+v, %v", o, got, err)
		}
	}
}
