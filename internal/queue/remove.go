package queue

import (
	"context"
	"log/slog"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// doubt has a key removed that stands before our place if it is a place under our lease at which no
// contender stands: somebody has put it there by hand, or a late write has. The lease is renewed
// for us, and would keep it. It reports whether the key is such a place.
func doubt(o Options, ahead string, kv message.KV) bool {
	if kv.Lease != int64(o.Place.Lease) {
		return false
	}
	p, ok := translate.PlaceOf(o.Place.Lock, ahead, kv)
	if !ok || !o.Lease.Places.Take(p.Key) {
		return false
	}
	remove(o, p)
	return true
}

// remove removes a place that it leaves at the end. What does so is a contender that has given up,
// and does not know whether it has joined.
func remove(o Options, p wire.Place) {
	c := New(Options{Place: p, Lease: o.Lease, Timing: o.Timing, Log: o.Log, Lone: true, Removes: true}, nil)
	c.drive(givenUp, message.Acquire{}, func() bool { return false })
}

// givenUp is the context of who has given up.
var givenUp = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// TakeAway removes the lock of a contender, or the place that waits, and no more, also after
// Abandon: where the user may not write one of the keys under a lease, the tail say, etcd refuses
// to revoke the lease. It does nothing if it is not known that the place was created.
func TakeAway(ctx context.Context, c *Contender) error {
	c.mu.Lock()
	r := message.Request{Name: message.GiveBack, Rev: c.m.Token, Seat: c.m.Seat}
	if r.Rev == 0 || c.m.Shares {
		r = message.Request{Name: message.Leave, Rev: c.m.Created()}
	}
	c.mu.Unlock()
	if r.Rev == 0 {
		return nil
	}
	_, _, err := c.sender.Rewrite(ctx, r)
	return err
}

// tellRemoved tells of a place that was there.
func tellRemoved(d *driver, r message.Request, a message.Answer) {
	if d.Removes && a.Outcome == message.Applied && (r.Name == message.Remove || r.Releases()) {
		d.say(slog.LevelWarn, "removed a place in line at which nobody stood", "key", d.Place.Lock, "place", d.Place.Key)
	}
}

// leavePlaceLocked lets another contender stand at the place, of which nothing is left. It does not
// if a late removal may still be under way: what it would remove may be there again. It is called
// with mu locked.
func (d *driver) leavePlaceLocked() {
	if !d.m.HasLease() {
		return
	}
	// What somebody else has put there may have come after the last look. Whoever has met it since
	// has taken it for ours.
	mayBeBack := d.Removes || isOverwrittenLocked(d)
	if !d.Lease.Places.Leave(d.Place.Key, mayBeBack) {
		d.Lease.Go(func(context.Context) { remove(d.Options, d.Place) })
	}
}

// isOverwrittenLocked reports whether somebody else may have written the place, or made another of
// its name. It is called with mu locked.
func isOverwrittenLocked(d *driver) bool {
	return d.end == message.Deleted || d.end == message.Overwritten || d.m.LostPlace()
}
