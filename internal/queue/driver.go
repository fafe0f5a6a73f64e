package queue

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/asking"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/watch"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A driver has a machine, and does what that asks for: it sends its requests one after another,
// opens its watches, and waits. A caller's goroutine sends while the caller waits for what comes of
// it; otherwise one of the lease's does.
type driver struct {
	Options
	user   User
	self   self
	sender asking.Sender
	wake   chan struct{} // something has happened that a waiting caller must know

	token atomic.Int64
	seat  atomic.Int32 // as the token, that of the holding
	met   atomic.Bool  // a try has met a place of the lease's at which nobody stands

	mu        sync.Mutex
	m         protocol.Machine
	next      *message.Request // to be sent
	unclear   bool             // it was sent with others, which may have been applied
	sending   bool             // somebody sends the one before it, or is about to send this one
	warned    bool             // that there are retries
	tracked   bool
	abandoned bool // before there was a release
	callers   int  // who send what there is to be sent
	watches   [message.Watchers]*watch.Watch
	timer     *time.Timer
	pause     time.Duration // before the last retry
	err       error         // of the last request
	unread    error         // why the state may not be read, which ends the wait

	// What the machine has told.
	end      message.End
	endErr   error // of the request that has failed then
	released *Released
	gone     bool

	sight sight
}

// self is what the lease and the watches know of the one that a driver is part of.
type self interface {
	lease.Member
	lease.Remnant
	watch.Owner
}

// step gives the machine an input, and does what it asks for.
func (d *driver) step(in message.Input) {
	d.mu.Lock()
	d.stepLocked(in)
	d.mu.Unlock()
	d.stepped()
}

// stepFor is step with what a watch has told, unless the watch has ended.
func (d *driver) stepFor(w *watch.Watch, in func(of message.Watched) message.Input) {
	d.mu.Lock()
	for of, one := range d.watches {
		if one == w {
			d.stepLocked(in(message.Watched(of)))
			break
		}
	}
	d.mu.Unlock()
	d.stepped()
}

func (d *driver) stepLocked(in message.Input) {
	effects := rooms.Get().(*[]message.Effect) // not the driver's own: what is done may make a step
	*effects = d.m.StepIn(in, (*effects)[:0])
	for i := range *effects {
		d.doLocked(&(*effects)[i])
	}
	clear(*effects)
	rooms.Put(effects)
}

// rooms are for the effects of steps, which are larger than most of what a lock takes.
var rooms = sync.Pool{New: func() any { return new([]message.Effect) }}

func (d *driver) stepped() {
	d.notify()
	d.kick()
}

func (d *driver) notify() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// kick has what is to be sent sent in the background, if no caller sends it. Where nothing runs in
// the background any more, the lease takes along what is left.
func (d *driver) kick() {
	d.mu.Lock()
	kick := d.next != nil && !d.sending && d.callers == 0
	d.sending = d.sending || kick
	d.mu.Unlock()
	if !kick || d.Lease.Go(d.drain) {
		return
	}
	d.mu.Lock()
	d.next, d.sending = nil, false
	d.stepLocked(message.LeaseLost{})
	d.stepLocked(message.Answer{Outcome: message.Unknown, Repeated: true})
	d.mu.Unlock()
	d.stepped()
}

// doLocked does what the machine asks for. It is called with mu locked.
func (d *driver) doLocked(e *message.Effect) {
	switch e.Do {
	case message.Send:
		next := e.Request
		d.next = &next
	case message.Watch:
		key, end := e.Key, ""
		switch e.Of {
		case message.OnLock:
			key = d.Place.At(d.m.Seat).LockKey()
		case message.OnSlots:
			key, end = wire.SlotsRange(d.Place.Lock, d.Place.Mode.Slots())
		case message.OnTail:
			key = wire.Tail(d.Place.Lock)
		case message.OnAhead:
			d.say(slog.LevelDebug, "waiting", "key", d.Place.Lock, "behind", key)
		}
		d.watches[e.Of] = d.Lease.Watch(key, end, e.From, d.self)
	case message.Unwatch:
		d.Lease.Cancel(d.watches[e.Of])
		d.watches[e.Of] = nil
	case message.Observe:
		d.Lease.ScheduleRead(d.self)
	case message.Timer:
		d.timer = time.AfterFunc(d.delayLocked(e.Delay), func() { d.step(message.Elapsed{}) })
		if e.Delay != message.Retry {
			break
		}
		fallthrough // nobody else tells it when the lease has gone
	case message.Track:
		if !d.tracked {
			d.tracked = true
			if !d.Lease.Track(d.self) {
				d.stepLocked(message.LeaseLost{})
			}
		}
	default:
		d.tellLocked(e)
	}
}

// tellLocked passes on what the machine says. It is called with mu locked.
func (d *driver) tellLocked(e *message.Effect) {
	switch e.Do {
	case message.TellWaiting:
		d.user.Waiting()
	case message.TellHeld:
		d.seat.Store(int32(d.m.Seat))
		d.token.Store(e.Token)
	case message.TellBusy:
		d.end = message.Busy
	case message.TellEnd:
		d.end, d.endErr = e.End, cmp.Or(d.unread, d.err)
	case message.TellLost:
		why := translate.Broken(e.Reason, e.Written)
		if e.Reason == message.Unrenewed {
			why = d.whyLocked()
		}
		d.user.Lost(e.Reason, why)
	case message.TellExpired:
		d.user.Expired()
	case message.TellReleased:
		d.released = &Released{Confirmed: e.Confirmed, Reason: e.Reason, Cause: translate.Broken(e.Reason, e.Written)}
	case message.TellGone:
		d.gone = true
		if d.timer != nil {
			d.timer.Stop()
		}
		if d.tracked {
			d.Lease.Untrack(d.self)
		}
		d.leavePlaceLocked()
	}
}

// inPassing is how long the news that a holder has gone may come before the news that it passed the
// lock on.
const inPassing = time.Millisecond

// spread is the time over which those read the line who have searched in vain: there may be
// thousands of them.
const spread = 500 * time.Millisecond

// delayLocked returns how long a timer takes. It is called with mu locked.
func (d *driver) delayLocked(of message.Delay) time.Duration {
	switch of {
	case message.InPassing:
		return inPassing
	case message.Spread:
		return rand.N(spread)
	}
	if !d.warned {
		d.warned = true
		d.say(slog.LevelWarn, "cannot take back a place in line yet", "key", d.Place.Lock, "place", d.Place.Key, "cause", d.err)
	}
	d.pause = min(max(2*d.pause, retry.PauseMin), retry.PauseRefused)
	return d.pause
}

// drive gives the machine an input, and sends what it asks for until done, which is called with mu
// locked, or ctx is done. What is left to be sent then is sent in the background.
func (d *driver) drive(ctx context.Context, in message.Input, done func() bool) {
	d.begin(in)
	d.driveOn(ctx, done)
}

// begin is the first half of drive: what the machine asks for is sent by who calls driveOn.
func (d *driver) begin(in message.Input) {
	d.mu.Lock()
	d.callers++
	d.mu.Unlock()
	d.step(in)
}

// driveOn is the second half of drive.
func (d *driver) driveOn(ctx context.Context, done func() bool) {
	for {
		d.mu.Lock()
		is := done()
		if is || ctx.Err() != nil {
			d.callers--
			if !is {
				d.unsendLocked()
			}
			d.mu.Unlock()
			d.kick()
			return
		}
		r := d.takeLocked()
		d.mu.Unlock()
		if r == nil {
			select {
			case <-d.wake:
			case <-ctx.Done():
			}
			continue
		}
		d.send(ctx, *r)
		d.sent()
	}
}

// sent makes room for the next request.
func (d *driver) sent() {
	d.mu.Lock()
	d.sending = false
	d.mu.Unlock()
}

// unsendLocked gives up a request of a waiter that was not sent yet.
func (d *driver) unsendLocked() {
	if d.m.State >= standing.Held || d.sending || d.next == nil {
		return
	}
	joins := d.next.Joins()
	d.next = nil
	d.stepLocked(message.Cancel{})
	d.stepLocked(message.Answer{Outcome: message.Unknown})
	if joins {
		d.settledLocked()
	}
}

// takeLocked returns the request that is to be sent now, or nil. It is called with mu locked.
func (d *driver) takeLocked() *message.Request {
	if d.sending || d.next == nil {
		return nil
	}
	r := d.next
	d.next, d.sending = nil, true
	return r
}

// drain sends what there is to be sent, as long as no caller does.
func (d *driver) drain(ctx context.Context) {
	for {
		d.mu.Lock()
		d.sending = false
		var r *message.Request
		if d.callers == 0 {
			r = d.takeLocked()
		}
		d.mu.Unlock()
		if r == nil {
			d.notify() // whoever has come meanwhile
			return
		}
		d.send(ctx, *r)
	}
}

// send sends a request until its outcome is known, or ctx is done, and tells the machine.
func (d *driver) send(ctx context.Context, r message.Request) {
	answer, err := d.sender.Ask(ctx, r)
	d.mu.Lock()
	answer.Repeated, d.unclear = answer.Repeated || d.unclear, false
	d.mu.Unlock()
	d.answered(ctx, r, answer, err)
}

// answered tells the machine what came of a request.
func (d *driver) answered(ctx context.Context, r message.Request, answer message.Answer, err error) {
	switch {
	case err == nil:
	case ctx.Err() != nil:
		d.step(message.Cancel{}) // this is why the outcome is unknown
	case errors.Is(err, lease.ErrHistoryLost):
		d.Lease.Fail(lease.ErrHistoryLost)
		d.step(message.LeaseLost{History: true}) // also if it has left the lease
	case errors.Is(err, rpctypes.ErrLeaseNotFound) && !r.WritesForOthers():
		d.Lease.Fail(lease.ErrGone)
	}
	d.mu.Lock()
	d.err = err
	d.stepLocked(answer)
	if r.Joins() {
		d.settledLocked()
	}
	d.mu.Unlock()
	d.stepped()
	tellRemoved(d, r, answer)
	// Whoever waits watches what is before it, and reads that.
	if (d.Try || r.Name == message.ReadKind) && doubt(d.Options, answer.Ahead.Key, answer.Found) {
		d.met.Store(true)
	}
}

// settled tells the machine that all requests to join have been answered, if that is so.
func (d *driver) settled() {
	d.mu.Lock()
	d.settledLocked()
	d.mu.Unlock()
	d.stepped()
}

func (d *driver) settledLocked() {
	if d.sender.IsSettled() {
		d.stepLocked(message.Settled{})
	}
}

// say writes a message to the logger, some time later.
func (d *driver) say(level slog.Level, message string, args ...any) {
	d.Lease.Notices.Log(d.Log, level, message, args...)
}
