// Package line reads who holds a lock and who waits for it, to tell people.
package line

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Line is who holds a lock and who waits for it, as of one revision.
type Line struct {
	Lock     string
	Revision int64              // 0 if it is not known
	Slots    int                // of a semaphore, else 0
	Shared   bool               // by who has it
	Holders  []Holder           // who have the lock, the first one first
	Hand     *Holder            // K, if somebody put it by hand beside those who have the lock
	Places   []*mvccpb.KeyValue // oldest first, the holders' among them
	More     bool               // there may be others

	has     []bool // of each place, whether it is that of a holder
	unclear bool   // whether the oldest one has the lock: the past of K tells
}

// A Holder is one who has the lock, alone or together with others.
type Holder struct {
	ID     string // as it is shown
	Lease  clientv3.LeaseID
	Token  int64         // 0 where the lock is shared, or a Mutex's, and it is not known
	Record record.Record // of its place, if that is known, and one of ours

	// Nonce means this holder and no other: the token, or, of one who shares the lock, the revision
	// that created its place.
	Nonce int64

	// Key makes it the holder: K, a slot, or the place of one who shares the lock, or whose K is
	// gone. Place is nil if it is not known.
	Key, Place *mvccpb.KeyValue

	Broken *record.Break // who has asked it to stop, nil if that is not known
	ByHand bool          // it was asked to stop by hand: Key is overwritten, or K is gone

	Since time.Time // when it has got the lock, see AddSince

	Mutex bool          // etcd's own, or etcdctl lock, or a pause
	Pause *record.Pause // that the place has, if it is one
}

// Of returns the line for a lock of which all keys below K/ are known that belong to it, and K, if
// it is there. Where somebody has deleted K, it does not tell the holder if that had got the lock
// at once, when nobody was there: only the past of K does.
func Of(lock string, k, below []*mvccpb.KeyValue) Line {
	line := Line{Lock: lock}
	line.fill(k, below, nil)
	return line
}

// fill finds out who has the lock. Past is K as it was when the oldest place was written last, or
// later, if that is known. To those who want a slot K is not the lock: who has it is next. A pause
// that has not begun waits for slots, and for K, also where no place has these.
func (l *Line) fill(k, below, past []*mvccpb.KeyValue) {
	l.Places = wire.Places(l.Lock, below)
	l.has = make([]bool, len(l.Places))
	l.Holders, l.Hand, l.Slots, l.Shared, l.unclear = nil, nil, 0, false, false
	slots, taken := l.findSlots(below)
	key := first(k)
	granted := slices.IndexFunc(l.Places, func(p *mvccpb.KeyValue) bool { return key != nil && p.ModRevision == key.ModRevision })
	isTurn := granted >= 0 && wire.ModeOf(l.Lock, l.Places[granted]).Slots() > 0 || granted < 0 && slots > 0 && l.More
	oldest := l.oldest()
	awaited := isWaitingPause(l.Lock, oldest) && (len(taken) > 0 || key != nil && !isTurn)
	switch {
	case granted >= 0 && !isTurn:
		l.addAlone(granted, key)
		return
	case oldest != nil && wire.IsMutex(l.Lock, oldest) && !awaited:
		l.add(Holder{Nonce: oldest.CreateRevision, Key: oldest, Mutex: true, Pause: PauseOf(l.Lock, oldest)}, 0)
	case !awaited && l.hadKey(oldest, key, first(past)):
		if key != nil && key.CreateRevision <= oldest.ModRevision {
			l.addAlone(0, key)
			return
		}
		l.addAlone(0, nil)
	case len(taken) > 0, slots > 0 && len(l.Places) > 0 && wire.ModeOf(l.Lock, l.Places[0]).Slots() > 0:
		l.Slots = slots
		l.addSlots(taken)
	default:
		l.addSharers(key)
	}
	if key != nil && !isTurn {
		l.addKey(key)
	}
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// oldest returns the oldest place, nil without one, or if that is not known.
func (l *Line) oldest() *mvccpb.KeyValue {
	if l.More {
		return nil
	}
	return first(l.Places)
}

// hadKey reports whether the oldest place was given K, which somebody has deleted since, or
// overwritten. A place is written with K: again if it had waited, and created if nobody was there.
// Who had it alone was the oldest, and still is.
func (l *Line) hadKey(oldest, key, past *mvccpb.KeyValue) bool {
	switch {
	case oldest == nil, wire.ModeOf(l.Lock, oldest) != mode.Exclusive, key != nil && key.ModRevision < oldest.ModRevision:
		return false
	case oldest.ModRevision > oldest.CreateRevision, key != nil && key.CreateRevision == oldest.ModRevision:
		return true
	}
	l.unclear = true
	return past != nil && (past.ModRevision == oldest.ModRevision || past.CreateRevision == oldest.ModRevision)
}

// findSlots finds out of how many slots the semaphore is, by the oldest in line for one, and which
// of them are held, the one that was taken first first.
func (l *Line) findSlots(kvs []*mvccpb.KeyValue) (slots int, taken []*mvccpb.KeyValue) {
	for _, kv := range slices.Concat(l.Places, kvs) {
		if slots = wire.ModeOf(l.Lock, kv).Slots(); slots > 0 {
			break
		}
	}
	for _, kv := range kvs {
		if _, of := wire.SlotOf(l.Lock, string(kv.Key)); of > 0 && of == slots {
			taken = append(taken, kv)
		}
	}
	slices.SortFunc(taken, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	return slots, taken
}

// addAlone adds the one who has the lock alone, at the i-th place. Without K that was deleted.
func (l *Line) addAlone(i int, key *mvccpb.KeyValue) {
	p := l.Places[i]
	l.add(asked(Holder{Token: p.ModRevision, Nonce: p.ModRevision, Key: cmp.Or(key, p)}, key != nil && key.ModRevision == p.ModRevision), i)
}

// addSlots adds those who have slots. A slot is created when it is taken. Who is passed K is
// written with a slot as well.
func (l *Line) addSlots(taken []*mvccpb.KeyValue) {
	for _, slot := range taken {
		got := slot.CreateRevision
		i := slices.IndexFunc(l.Places, func(p *mvccpb.KeyValue) bool { return p.ModRevision == got && record.SeatOf(p.Value) > 0 })
		l.add(asked(Holder{Token: got, Nonce: got, Key: slot}, slot.ModRevision == got), i)
	}
}

// addSharers adds those who share the lock: nobody else is before them, and they were there before
// K was put.
func (l *Line) addSharers(key *mvccpb.KeyValue) {
	for i, p := range l.Places {
		if !wire.IsShared(l.Lock, p) || key != nil && (l.More || p.CreateRevision > key.CreateRevision) {
			return
		}
		l.Shared = true
		l.add(asked(Holder{Nonce: p.CreateRevision, Key: p}, p.ModRevision == p.CreateRevision), i)
	}
}

// addKey adds K, which no place that is known was given.
func (l *Line) addKey(key *mvccpb.KeyValue) {
	h := Holder{Token: key.ModRevision, Nonce: key.ModRevision, Key: key}
	if b, _ := record.BreakOf(key.Value); b != nil && key.Lease != 0 && key.CreateRevision <= b.Token && b.Token < key.ModRevision {
		h.Token, h.Nonce, h.Broken = b.Token, b.Token, b
	}
	if len(l.Holders) > 0 {
		h = l.known(h, -1)
		l.Hand = &h
		return
	}
	l.Slots = 0
	l.add(h, -1)
}

// asked says of a holder who has asked it to stop, if its key is not as it was when it got that. A
// value counts only if it names this holder: an id can look like a break.
func asked(h Holder, untouched bool) Holder {
	if untouched {
		return h
	}
	if b, _ := record.BreakOf(h.Key.Value); b != nil && b.Token == h.Nonce {
		h.Broken = b
	}
	h.ByHand = h.Broken == nil
	return h
}

// add adds a holder, which has the i-th place, or, with -1, none.
func (l *Line) add(h Holder, i int) {
	if i >= 0 {
		l.has[i] = true
	}
	l.Holders = append(l.Holders, l.known(h, i))
}

// known adds to a holder what its place and its key say of it.
func (l *Line) known(h Holder, i int) Holder {
	h.Lease = clientv3.LeaseID(h.Key.Lease)
	if i >= 0 {
		h.Place = l.Places[i]
		h.Lease = clientv3.LeaseID(h.Place.Lease)
		h.Record, _ = record.Parse(h.Place.Value)
	}
	switch {
	case h.Mutex:
		h.ID = NameOfMutex(h.Place)
	case h.Key == h.Place, h.ByHand && i >= 0:
		h.ID = h.Record.ID
	case h.Broken != nil:
		_, id := record.BreakOf(h.Key.Value)
		h.ID = record.Cut(id)
	default:
		h.ID = record.Cut(string(h.Key.Value))
	}
	return h
}

// PauseOf returns the pause that has a place in line, nil if that is somebody else.
func PauseOf(lock string, place *mvccpb.KeyValue) *record.Pause {
	if !wire.IsMutex(lock, place) {
		return nil
	}
	return record.PauseOf(place.Value)
}

// isWaitingPause reports whether a place is that of a pause that has not begun.
func isWaitingPause(lock string, place *mvccpb.KeyValue) bool {
	if place == nil {
		return false
	}
	p := PauseOf(lock, place)
	return p != nil && !p.HasBegun()
}

// WaitingPause returns what the first pause in line says that waits for its turn, nil if none does.
func (l Line) WaitingPause() *record.Pause {
	for i, place := range l.Places {
		if p := PauseOf(l.Lock, place); p != nil && !l.has[i] {
			return p
		}
	}
	return nil
}

// NameOfMutex returns how a place is shown that has no record of who stands there, as that of
// etcd's own Mutex, or of a pause.
func NameOfMutex(place *mvccpb.KeyValue) string {
	if p := record.PauseOf(place.Value); p != nil {
		return p.Name()
	}
	return fmt.Sprintf("etcd (lease %x)", place.Lease)
}

// Has reports whether the i-th place is that of a holder.
func (l Line) Has(i int) bool { return l.has[i] }

// AreWaiting reports whether there are places of others than those who have the lock.
func (l Line) AreWaiting() bool { return slices.Contains(l.has, false) }

// Stand returns whether a process of this host has the lock, or else which place in line: 1 is
// next, and 0 that it does not stand there. Those who share the lock do not stand before each
// other, nor does anybody who has a slot.
func (l Line) Stand(pid int) (place int, has bool) {
	own := slices.IndexFunc(l.Places, func(kv *mvccpb.KeyValue) bool {
		r, err := record.Parse(kv.Value)
		return err == nil && r.IsOf(pid)
	})
	if own < 0 {
		return 0, false
	}
	if l.has[own] {
		return 0, true
	}
	place = 1
	for i, kv := range l.Places[:own] {
		beside := record.SeatOf(kv.Value) > 0 || wire.IsShared(l.Lock, kv) && wire.IsShared(l.Lock, l.Places[own])
		if !l.has[i] && !beside {
			place++
		}
	}
	return place, false
}
