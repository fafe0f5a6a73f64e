package admin

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// exclusive is the name of the mode of a lock that is held alone.
var exclusive = mode.Exclusive.Name()

// triesAtRevision is how often etcd is read anew if it compacts the revision that is read.
const triesAtRevision = 3

// Look returns who has a lock and who waits for it, all of them. A lock that nobody has, or wants,
// is Free: that is not an error. It blocks until etcd answers, or ctx is done. It needs permission
// to read the key and all below key/, and reads no values there but those of the lock.
func Look(ctx context.Context, client *clientv3.Client, key string) (Line, error) {
	free := Line{Key: key, State: Free}
	isAsked := func(lock string) bool { return lock == key }
	lines, revision, err := read(ctx, client, isAsked, wire.Prefix(key), clientv3.GetPrefixRangeEnd(wire.Prefix(key)))
	if err != nil {
		return free, fmt.Errorf("looking at lock %q: %w", key, err)
	}
	free.Revision = revision
	if len(lines) == 0 {
		return free, nil
	}
	return lines[0], nil
}

// List returns the locks whose keys begin with a prefix and that somebody has, or waits for, in the
// order of their keys; the empty prefix means all. It blocks until etcd answers, or ctx is done. An
// error is the last thing that it yields. It needs permission to read the prefix, and reads no
// values but those of locks. Who has put a key by hand shows only where somebody waits for that.
func List(ctx context.Context, client *clientv3.Client, prefix string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		from, end, isAsked := below(prefix)
		lines, _, err := read(ctx, client, isAsked, from, end)
		if err != nil {
			yield(Line{}, fmt.Errorf("listing locks below %q: %w", prefix, err))
			return
		}
		for _, l := range lines {
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

// read returns those locks that are asked for and of which there is something in a range of keys.
func read(ctx context.Context, client *clientv3.Client, isAsked func(lock string) bool, from, end string) (lines []Line, revision int64, err error) {
	s, err := surveyOf(ctx, client, isAsked, from, end)
	if err != nil {
		return nil, 0, err
	}
	lines, err = s.lines(ctx)
	return lines, s.revision, err
}

// surveyOf reads what there is of the locks that are asked for. It begins anew if etcd compacts
// what it reads.
func surveyOf(ctx context.Context, client *clientv3.Client, isAsked func(lock string) bool, from, end string) (s *survey, err error) {
	for range triesAtRevision {
		s = &survey{client: client, isAsked: isAsked}
		if err = s.names(ctx, from, end); err == nil {
			err = s.values(ctx)
		}
		if !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	return s, err
}

// lines returns the locks that are held or waited for.
func (s *survey) lines(ctx context.Context) (lines []Line, err error) {
	var found []line.Line
	for _, lock := range s.order {
		of := s.locks[lock]
		if l := line.Of(lock, of.k, of.below); len(l.Places) > 0 {
			found = append(found, l)
		}
	}
	ttls, err := s.ttls(ctx, found)
	if err != nil {
		return nil, err
	}
	for _, l := range found {
		lines = append(lines, s.line(l, ttls))
	}
	return lines, nil
}

// line returns a lock as users see it.
func (s *survey) line(l line.Line, ttls map[clientv3.LeaseID]ttl) Line {
	out := Line{Key: l.Lock, State: Held, Mode: modeOf(l).Name(), Slots: l.Slots, Revision: s.revision}
	for _, has := range l.Holders {
		h := holder(l, has)
		h.TTL, h.TTLLeft = ttls[has.Lease].granted, ttls[has.Lease].left
		switch {
		case h.Broken != nil:
			out.State = Broken
		case h.Kind == Hand:
			out.State = ByHand
		}
		out.Holders = append(out.Holders, h)
	}
	switch {
	case len(out.Holders) == 0:
		out.State = Passing
	case out.Mode == exclusive:
		out.Token = l.Holders[0].Token
	}
	for i, place := range l.Places {
		if !l.Has(i) {
			out.Waiters = append(out.Waiters, waiter(l.Lock, len(out.Waiters)+1, place))
		}
	}
	return out
}

// holder returns one who has a lock as users see it.
func holder(l line.Line, has line.Holder) Holder {
	h := Holder{Contender: contender(has.Record, has.Lease), Nonce: has.Nonce, Broken: has.Broken}
	h.ID = has.ID
	switch {
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

// modeOf returns how those who have a lock have it.
func modeOf(l line.Line) mode.Mode {
	switch {
	case l.Shared:
		return mode.Shared
	case l.Slots > 0:
		return mode.OfSlots(l.Slots)
	}
	return mode.Exclusive
}

// slotOf returns which slot of a lock a holder has, -1 if it has none.
func slotOf(l line.Line, h line.Holder) int {
	return wire.Place{Lock: l.Lock, Mode: modeOf(l)}.SlotOf(string(h.Key.Key))
}

func waiter(lock string, n int, place *mvccpb.KeyValue) Waiter {
	r, err := record.Parse(place.Value)
	w := Waiter{Place: n, Contender: contender(r, clientv3.LeaseID(place.Lease))}
	if err != nil {
		w.ID = line.NameOfMutex(place)
	}
	if wire.IsMutex(lock, place) {
		w.Kind = Etcd
	}
	if wire.IsShared(lock, place) {
		w.Mode = mode.Shared.Name()
	}
	return w
}

// lastYear is the last one that RFC 3339 can say. Anybody may have written a record.
const lastYear = 9999

// contender returns what a record says, as far as that can be.
func contender(r record.Record, lease clientv3.LeaseID) Contender {
	c := Contender{Kind: Library, ID: r.ID, Host: r.Host, PID: max(r.PID, 0), User: r.User, Command: r.Command, Why: r.Why}
	if r.Kind == string(Etcdlocker) {
		c.Kind = Etcdlocker
	}
	if since := r.Since.UTC(); since.Year() <= lastYear {
		c.Joined = since
	}
	if lease != 0 {
		c.Lease = strconv.FormatInt(int64(lease), 16)
	}
	return c
}

// A ttl is what etcd says of a lease.
type ttl struct{ granted, left time.Duration }
