package admin

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// exclusive is the name of the mode of a lock that is held alone.
var exclusive = mode.Exclusive.Name()

// Look returns who has a lock and who waits for it, all of them. A lock that nobody has, or wants,
// is Free: that is not an error. Who has put the key by hand shows, also if nobody waits. It blocks
// until etcd answers, or ctx is done. It needs permission to read the key and all below key/, and
// reads no values there but those of the lock.
func Look(ctx context.Context, client *clientv3.Client, key string) (Line, error) {
	l, err := line.Whole(ctx, client, key)
	if err != nil {
		return Line{Key: key, State: Free}, fmt.Errorf("looking at lock %q: %w", key, err)
	}
	return lines(ctx, client, l)[0], nil
}

// List returns the locks whose keys begin with a prefix and that somebody has, or waits for, in the
// order of their keys; the empty prefix means all. It blocks until etcd answers, or ctx is done. An
// error is the last thing that it yields. It needs permission to read the prefix, and reads no
// values but those of locks. Who has put a key by hand shows only where somebody waits for that.
func List(ctx context.Context, client *clientv3.Client, prefix string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		all, _, err := Locks(ctx, client, prefix)
		if err != nil {
			yield(Line{}, err)
			return
		}
		for _, l := range all {
			if !yield(l, nil) {
				return
			}
		}
	}
}

// below returns the range of keys that begin with a prefix, and which locks are asked for: what
// lies above the prefix may not be read.
func below(prefix string) (from, end string, isAsked func(lock string) bool) {
	from, end = prefix, clientv3.GetPrefixRangeEnd(prefix)
	if prefix == "" {
		from, end = "\x00", "\x00"
	}
	return from, end, func(lock string) bool { return strings.HasPrefix(lock, prefix) }
}

// Locks returns what List yields, and the revision of etcd in which that was so. A Line has a later
// one if a Mutex has gone meanwhile: then it was read anew. It blocks and fails as List does.
func Locks(ctx context.Context, client *clientv3.Client, prefix string) (all []Line, revision int64, err error) {
	from, end, isAsked := below(prefix)
	found, revision, err := line.All(ctx, client, isAsked, from, end)
	if err != nil {
		return nil, 0, fmt.Errorf("listing locks below %q: %w", prefix, err)
	}
	return lines(ctx, client, found...), revision, nil
}

// lines returns locks as users see them.
func lines(ctx context.Context, client *clientv3.Client, found ...line.Line) (all []Line) {
	ttls := line.TTLs(ctx, client, found)
	line.AddSince(ctx, client, found)
	for _, l := range found {
		all = append(all, lineOf(l, ttls))
	}
	return all
}

// lineOf returns a lock as users see it.
func lineOf(l line.Line, ttls map[clientv3.LeaseID]line.TTL) Line {
	out := Line{Key: l.Lock, Mode: l.Mode().Name(), Slots: l.Slots, Revision: l.Revision}
	for _, has := range l.Holders {
		out.Holders = append(out.Holders, holder(l, has, ttls[has.Lease]))
	}
	if l.Hand != nil {
		hand := holder(l, *l.Hand, line.TTL{})
		hand.Kind = Hand
		out.Hand = &hand
	}
	for i, place := range l.Places {
		if !l.Has(i) {
			out.Waiters = append(out.Waiters, waiter(l.Lock, len(out.Waiters)+1, place))
		}
	}
	switch {
	case len(out.Holders) == 0 && len(out.Waiters) == 0:
		out.State, out.Mode = Free, ""
		return out
	case len(out.Holders) == 0:
		out.State = Passing
		return out
	case slices.ContainsFunc(out.Holders, Holder.IsAsked):
		out.State = Broken
	case out.Holders[0].Pause != nil && !out.Holders[0].Pause.HasBegun():
		out.State = Passing // it has not begun
	case out.Holders[0].Pause != nil:
		out.State = Paused
	case out.Mode == exclusive && out.Holders[0].Kind == Hand:
		out.State = ByHand
	default:
		out.State = Held
	}
	if out.Mode == exclusive {
		out.Token = l.Holders[0].Token
	}
	return out
}

// holder returns one who has a lock as users see it.
func holder(l line.Line, has line.Holder, ttl line.TTL) Holder {
	h := Holder{Contender: contender(has.Record, has.Lease), Broken: has.Broken, ByHand: has.ByHand, TTL: ttl.Granted, TTLLeft: ttl.Left}
	h.ID, h.Nonce, h.Acquired = has.ID, has.Nonce, record.Said(has.Since)
	switch {
	case h.isPause(has.Pause):
		if h.Pause.HasBegun() && ttl.Granted > 0 { // nobody renews it
			h.Acquired = record.Said(h.Pause.Until.Add(-ttl.Granted))
		}
	case has.Mutex:
		h.Kind = Etcd
	case has.Lease == 0:
		h.Kind = Hand
	}
	if slot := slotOf(l, has); slot >= 0 {
		h.Slot = &slot
	}
	return h
}

// slotOf returns which slot of a lock a holder has, -1 if it has none.
func slotOf(l line.Line, h line.Holder) int {
	i, _ := wire.SlotOf(l.Lock, string(h.Key.Key))
	return i
}

func waiter(lock string, n int, place *mvccpb.KeyValue) Waiter {
	r, err := record.Parse(place.Value)
	w := Waiter{Place: n, Contender: contender(r, clientv3.LeaseID(place.Lease))}
	if err != nil {
		w.ID = line.NameOfMutex(place)
	}
	switch {
	case w.isPause(line.PauseOf(lock, place)):
		w.Nonce = place.CreateRevision
	case wire.IsMutex(lock, place):
		w.Kind = Etcd
	}
	if wire.IsShared(lock, place) {
		w.Mode = mode.Shared.Name()
	}
	return w
}

// contender returns what a record says, as far as that can be.
func contender(r record.Record, lease clientv3.LeaseID) Contender {
	c := Contender{Kind: Library, ID: r.ID, Host: r.Host, PID: max(r.PID, 0), User: r.User, Command: r.Command, Why: r.Why, Under: r.Under}
	if r.Kind == string(Etcdlocker) {
		c.Kind = Etcdlocker
	}
	c.Joined = record.Said(r.Since)
	if lease != 0 {
		c.Lease = strconv.FormatInt(int64(lease), 16)
	}
	return c
}

// isPause takes note that the contender is a pause, and reports whether it is.
func (c *Contender) isPause(p *Pausing) bool {
	if p == nil {
		return false
	}
	c.Kind, c.Pause, c.User, c.Host = ByPause, p, p.By, p.Host
	c.Joined = p.At
	return true
}
