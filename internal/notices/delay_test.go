package notices

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDelay: what takes too long is told once, however often it begins, and what ends before is
// not.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Delay
		told := 0
		tell := func() bool { told++; return true }
		if d.End() {
			t.Error("it was told before it has begun")
		}
		d.Begin(time.Second, tell)
		time.Sleep(time.Second - 1)
		if d.End() || told > 0 {
			t.Errorf("it was told too early: %d", told)
		}
		time.Sleep(time.Minute)
		for range 3 {
			d.Begin(time.Second, tell)
			time.Sleep(2 * time.Second)
		}
		if !d.End() || told != 1 || d.End() {
			t.Errorf("it was told %d times", told)
		}
		d.Begin(0, tell)
		time.Sleep(time.Minute)
		if d.End() {
			t.Error("it was told of what nothing hangs on")
		}
		d.Begin(time.Second, func() bool { return false })
		time.Sleep(2 * time.Second)
		if d.End() {
			t.Error("it was told that there was nothing to tell")
		}
		d.MuteIf(true) // of nothing
		d.Begin(time.Second, tell)
		d.MuteIf(false)
		time.Sleep(2 * time.Second)
		if !d.End() || told != 2 {
			t.Error("not muted, it was not told")
		}
		d.Begin(time.Second, tell)
		d.MuteIf(true)
		time.Sleep(2 * time.Second)
		if d.End() || told != 2 {
			t.Error("muted, it was told")
		}
		d.Begin(time.Second, tell)
		time.Sleep(2 * time.Second)
		if d.MuteIf(true); d.End() || told != 3 {
			t.Error("told and then muted, it ends as told")
		}
	})
}
