package follow

import (
	"bytes"
	"container/list"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// The classes of places. Who holds a lock shows by the oldest place of each class, and by what was
// written with K or a slot.
const (
	sharers = iota
	ofSemaphores
	others
	classes
)

func class(lock string, place *mvccpb.KeyValue) int {
	switch slots, _ := wire.SlotsOf(lock, string(place.Key)); {
	case wire.IsShared(lock, place):
		return sharers
	case slots > 0:
		return ofSemaphores
	}
	return others
}

// A lock is what is known of one. Who holds it is what package line says, of a part of the line
// that is enough to tell: a step costs as much in a long line as in a short one.
type lock struct {
	name     string
	revision int64 // of what is known
	key      *mvccpb.KeyValue
	slots    map[int]map[string]*mvccpb.KeyValue // that are taken, by the number of all
	line     [classes]list.List                  // of places, oldest first
	places   map[string]*list.Element
	written  map[int64][]*mvccpb.KeyValue // places, by ModRevision

	regime  regime
	holders map[string]*Holder // by their seats
	seats   map[string]string  // of holders, by their places
	stopped map[string]*Holder // by their places: what made them holders is gone, and they are not
}

// A regime is what decides who holds a lock, beside the keys of each holder. While it stays, only
// those need to be looked at that have a key which was written.
type regime struct {
	slots   int
	shared  bool
	barrier int64 // CreateRevision of the oldest place that does not share the lock
	key     int64 // the same of K
}

func newLock(name string) *lock {
	return &lock{
		name: name, slots: make(map[int]map[string]*mvccpb.KeyValue), places: make(map[string]*list.Element), written: make(map[int64][]*mvccpb.KeyValue),
		holders: make(map[string]*Holder), seats: make(map[string]string), stopped: make(map[string]*Holder),
	}
}

// isOf reports whether a key below K/ is a place in line, or a slot.
func isOf(lock string, kv *mvccpb.KeyValue) bool {
	_, slots := wire.SlotOf(lock, string(kv.Key))
	return slots > 0 || wire.IsPlace(lock, kv)
}

// isUnused reports whether nobody has the lock, or waits. Who has put K by hand shows only where
// somebody waits.
func (l *lock) isUnused() bool {
	return len(l.places) == 0 && len(l.slots) == 0 && (l.key == nil || l.key.Lease == 0)
}

func (l *lock) place(key string) *mvccpb.KeyValue {
	if e := l.places[key]; e != nil {
		return e.Value.(*mvccpb.KeyValue)
	}
	return nil
}

// set takes note of a key below K/, which is absent without kv.
func (l *lock) set(key string, kv *mvccpb.KeyValue) {
	if kv != nil && !isOf(l.name, kv) {
		kv = nil
	}
	if _, n := wire.SlotOf(l.name, key); n > 0 {
		l.setSlot(n, key, kv)
		return
	}
	e := l.places[key]
	if e != nil {
		was := e.Value.(*mvccpb.KeyValue)
		rest := slices.DeleteFunc(l.written[was.ModRevision], func(kv *mvccpb.KeyValue) bool { return kv == was })
		if l.written[was.ModRevision] = rest; len(rest) == 0 {
			delete(l.written, was.ModRevision)
		}
		if kv == nil || kv.CreateRevision != was.CreateRevision {
			l.line[class(l.name, was)].Remove(e)
			delete(l.places, key)
			e = nil
		}
	}
	switch {
	case kv == nil:
		return
	case e != nil:
		e.Value = kv
	default:
		l.places[key] = l.line[class(l.name, kv)].PushBack(kv)
	}
	l.written[kv.ModRevision] = append(l.written[kv.ModRevision], kv)
}

func (l *lock) setSlot(n int, key string, kv *mvccpb.KeyValue) {
	if kv == nil {
		if delete(l.slots[n], key); len(l.slots[n]) == 0 {
			delete(l.slots, n)
		}
		return
	}
	if l.slots[n] == nil {
		l.slots[n] = make(map[string]*mvccpb.KeyValue)
	}
	l.slots[n][key] = kv
}

// A part is some of the keys below K/.
type part map[string]*mvccpb.KeyValue

func (p part) add(kvs ...*mvccpb.KeyValue) {
	for _, kv := range kvs {
		if kv != nil {
			p[string(kv.Key)] = kv
		}
	}
}

// addAll adds all that is known of a lock.
func (p part) addAll(l *lock) {
	p.add(l.key)
	for _, e := range l.places {
		p.add(e.Value.(*mvccpb.KeyValue))
	}
	for _, taken := range l.slots {
		for _, slot := range taken {
			p.add(slot)
		}
	}
}

// addSlot adds a slot, and the places that were written when it was taken.
func (l *lock) addSlot(p part, slot *mvccpb.KeyValue) {
	p.add(slot)
	p.add(l.written[slot.CreateRevision]...)
}

// addSeat adds what there is of a seat: a slot, or the place of one who shares the lock.
func (l *lock) addSeat(p part, seat string) {
	if _, n := wire.SlotOf(l.name, seat); n > 0 && l.slots[n][seat] != nil {
		l.addSlot(p, l.slots[n][seat])
	}
	p.add(l.place(seat))
	if h := l.holders[seat]; h != nil && h.Place != nil {
		p.add(l.place(string(h.Place.Key)))
	}
}

// front returns the part of the line that tells the regime, and who holds the lock alone.
func (l *lock) front() part {
	p := make(part)
	for i := range l.line {
		if e := l.line[i].Front(); e != nil {
			p.add(e.Value.(*mvccpb.KeyValue))
		}
	}
	for _, taken := range l.slots {
		for _, slot := range taken {
			l.addSlot(p, slot)
			break // they are all of one kind
		}
	}
	if l.key != nil {
		p.add(l.written[l.key.ModRevision]...)
		p.add(l.written[l.key.CreateRevision]...)
	}
	l.addSeat(p, l.name)
	return p
}

// whole returns the part of the line that tells all who hold the lock.
func (l *lock) whole() part {
	p := l.front()
	for _, taken := range l.slots {
		for _, slot := range taken {
			l.addSlot(p, slot)
		}
	}
	barrier := l.barrier()
	for e := l.line[sharers].Front(); e != nil; e = e.Next() {
		place := e.Value.(*mvccpb.KeyValue)
		if barrier > 0 && place.CreateRevision > barrier {
			break
		}
		p.add(place)
	}
	for seat := range l.holders {
		l.addSeat(p, seat)
	}
	return p
}

// barrier returns when the oldest place was created that does not share the lock, 0 without one.
func (l *lock) barrier() (oldest int64) {
	for _, i := range []int{ofSemaphores, others} {
		if e := l.line[i].Front(); e != nil {
			if at := e.Value.(*mvccpb.KeyValue).CreateRevision; oldest == 0 || at < oldest {
				oldest = at
			}
		}
	}
	return oldest
}

// judge has package line say who holds the lock, as far as a part of the line tells.
func (l *lock) judge(p part) (line.Line, regime) {
	below := slices.SortedFunc(maps.Values(p), func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	var key []*mvccpb.KeyValue
	if l.key != nil {
		key = append(key, l.key)
	}
	now := line.Of(l.name, key, below)
	r := regime{slots: now.Slots, shared: now.Shared}
	if r.shared {
		r.barrier = l.barrier()
		if l.key != nil {
			r.key = l.key.CreateRevision
		}
	}
	return now, r
}

// seat returns what tells a holder from the others who hold the lock at the same time.
func (l *lock) seat(of line.Line, h line.Holder) string {
	switch {
	case of.Slots > 0:
		return string(h.Key.Key)
	case of.Shared:
		return string(h.Place.Key)
	}
	return l.name
}

// names returns the keys below K/ that are known.
func (l *lock) names() []string {
	names := slices.Collect(maps.Keys(l.places))
	for _, taken := range l.slots {
		names = slices.AppendSeq(names, maps.Keys(taken))
	}
	return names
}
