package notices

import (
	"sync"
	"time"
)

// leastDelay is how long something takes at least that is worth a word.
const leastDelay = 250 * time.Millisecond

// A Delay has something told of what takes too long, once until it has ended. The zero Delay has
// not begun.
type Delay struct {
	mu    sync.Mutex
	timer *time.Timer // nil: it has not begun
	told  bool
	muted bool
}

// Begin has tell called after some time, unless it has begun before, or ends by then, or there is
// no time, as nothing hangs on it. Tell reports whether there was anything to tell.
func (d *Delay) Begin(after time.Duration, tell func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil || after <= 0 {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(max(after, leastDelay), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.timer == timer && !d.muted {
			d.told = tell()
		}
	})
	d.timer, d.muted = timer, false
}

// MuteIf has nothing told any more until it has ended, if it is too late for that.
func (d *Delay) MuteIf(tooLate bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if tooLate {
		d.told, d.muted = false, true
	}
}

// End ends it, and reports whether that it takes too long was told.
func (d *Delay) End() (told bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	told, d.timer, d.told, d.muted = d.told, nil, false, false
	return told
}
