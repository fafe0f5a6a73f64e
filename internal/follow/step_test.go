package follow

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/record"
)

const key = "/k"

// An etcd is a small one, of one lock.
type etcd struct {
	*lock
	keys     map[string]*mvccpb.KeyValue
	revision int64
	batch    []written
}

func newEtcd() *etcd { return &etcd{lock: newLock(key), keys: make(map[string]*mvccpb.KeyValue)} }

// put writes a key in the next revision, and deletes it without a value.
func (e *etcd) put(key, value string, lease int64) {
	at := e.revision + 1
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), Lease: lease, CreateRevision: at, ModRevision: at}
	if was := e.keys[key]; was != nil {
		kv.CreateRevision = was.CreateRevision
	}
	e.keys[key] = kv
	e.batch = append(e.batch, written{key, kv})
}

func (e *etcd) remove(key string) {
	if e.keys[key] != nil {
		delete(e.keys, key)
		e.batch = append(e.batch, written{key: key})
	}
}

// commit ends a revision.
func (e *etcd) commit() []Change {
	e.revision++
	batch := e.batch
	e.batch = nil
	return e.step(e.revision, batch)
}

// all returns the line as package line tells it of all keys.
func (e *etcd) all() line.Line {
	var k, below []*mvccpb.KeyValue
	for _, name := range slices.Sorted(maps.Keys(e.keys)) {
		if name == key {
			k = append(k, e.keys[name])
		} else {
			below = append(below, e.keys[name])
		}
	}
	return line.Of(key, k, below)
}

func sketch(h line.Holder) string {
	return fmt.Sprintf("%s@%d %s %d %v %v", h.Key.Key, h.Key.ModRevision, h.ID, h.Nonce, h.Mutex, h.Broken != nil)
}

// TestAPartIsEnough: of whatever is in etcd, the part of the line that a step looks at tells the
// same holders as all of it. Each holder is told once, and so is its end.
func TestAPartIsEnough(t *testing.T) {
	for seed := range uint64(400) {
		e, r := newEtcd(), rand.New(rand.NewPCG(seed, 7))
		has := make(map[string]bool)
		for range 150 {
			e.random(r)
			for _, c := range e.commit() {
				checkOnce(t, has, c)
			}
			var got, want []string
			for _, h := range e.holders {
				got = append(got, sketch(h.Holder))
			}
			for _, h := range e.all().Holders {
				want = append(want, sketch(h))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, revision %d:\ngot  %q\nwant %q\nof %v", seed, e.revision, got, want, slices.Sorted(maps.Keys(e.keys)))
			}
			if len(e.places) == 0 && len(has) > 0 && e.key == nil && len(e.slots) == 0 {
				t.Fatalf("seed %d, revision %d: nothing is there, and these have it: %v", seed, e.revision, has)
			}
			for _, m := range []int{len(e.seats) - len(e.holders), len(e.written) - len(e.places), len(e.stopped) - len(e.places)} {
				if m > 0 {
					t.Fatalf("seed %d, revision %d: something was left: %d, %d, %d, %d", seed, e.revision, len(e.seats), len(e.holders), len(e.written), len(e.stopped))
				}
			}
		}
	}
}

// TestALongLineCostsNoMore: however many wait, or share the lock, a step looks at a few keys.
func TestALongLineCostsNoMore(t *testing.T) {
	const many, few, shared = 5000, 8, "%s/~s%x-1"
	for _, form := range []string{"%s/~%x-1", shared, "%s/=5.%x-1"} {
		e := newEtcd()
		if form != shared {
			e.put(key, "x", 1)
		}
		for i := range int64(many) {
			e.put(fmt.Sprintf(form, key, i+1), `{"v":1}`, i+1)
			e.commit()
		}
		was := e.regime
		e.put(fmt.Sprintf(form, key, many+1), `{"v":1}`, many+1)
		e.commit()
		e.remove(fmt.Sprintf(form, key, many+1))
		e.commit()
		if n := len(e.front()); n > few || e.regime != was || len(e.places) != many {
			t.Errorf("%s: %d keys of %d, %+v after %+v", form, n, len(e.places), e.regime, was)
		}
	}
}

// checkOnce holds that who gets the lock does not have it, and who ends has.
func checkOnce(t *testing.T, has map[string]bool, c Change) {
	t.Helper()
	who := func(h *Holder) string {
		if h.Place == nil {
			return "by hand"
		}
		return fmt.Sprintf("%s %d", h.Place.Key, h.Place.CreateRevision)
	}
	switch c.Kind {
	case Passed, Acquired:
		if c.Kind == Passed {
			if !has[who(c.From)] {
				t.Errorf("%s passes what it has not", who(c.From))
			}
			delete(has, who(c.From))
		}
		if has[who(c.Holder)] {
			t.Errorf("%s has it already", who(c.Holder))
		}
		has[who(c.Holder)] = true
	case Released:
		delete(has, who(c.Holder))
	}
}

// random does something at random, as locks do it, or as an operator might.
func (e *etcd) random(r *rand.Rand) {
	names := slices.Sorted(maps.Keys(e.keys))
	any := func(of string) string {
		var found []string
		for _, name := range names {
			if strings.Contains(name, of) {
				found = append(found, name)
			}
		}
		if len(found) == 0 {
			return ""
		}
		return found[r.IntN(len(found))]
	}
	lease := int64(r.IntN(5) + 1)
	switch r.IntN(13) {
	case 0:
		if e.keys[key] != nil {
			return
		}
		e.put(key, "x", lease)
		e.put(fmt.Sprintf("%s/~%x-1", key, lease), "{}", lease)
	case 1, 2:
		e.put(fmt.Sprintf("%s/~%x-%d", key, lease, r.IntN(3)), "{}", lease)
	case 3:
		for range r.IntN(3) + 1 {
			lease := int64(r.IntN(20) + 1)
			e.put(fmt.Sprintf("%s/~s%x-1", key, lease), `{"v":1}`, lease)
		}
	case 4:
		pause := record.Pause{By: "me"}
		e.put(fmt.Sprintf("%s/%x", key, lease), []string{"", pause.Value()}[r.IntN(2)], lease)
	case 5, 6:
		slot, place := fmt.Sprintf("%s/=5#%d", key, r.IntN(5)), fmt.Sprintf("%s/=5.%x-1", key, lease)
		if was := e.keys[place]; e.keys[slot] == nil && (was == nil || record.SeatOf(was.Value) == 0) {
			e.put(slot, "x", lease)
			e.put(place, record.Seated(`{"v":1}`, 1), lease)
		}
	case 7:
		if place := fmt.Sprintf("%s/=5.%x-%d", key, lease, r.IntN(2)); e.keys[place] == nil {
			e.put(place, `{"v":1}`, lease)
		}
	case 8: // a pass, or a turn
		if next := any("/"); next != "" && e.keys[key] != nil {
			for _, name := range names {
				if name != next && e.keys[name].ModRevision == e.keys[key].ModRevision && name != key {
					e.remove(name)
				}
			}
			kv := e.keys[next]
			e.put(key, "x", kv.Lease)
			e.put(next, string(kv.Value), kv.Lease)
		}
	case 9: // a break
		if h := e.all().Holders; len(h) > 0 && h[0].Place != nil && !h[0].Mutex && h[0].Broken == nil {
			b := &record.Break{By: "me", Token: h[0].Nonce}
			e.put(string(h[0].Key.Key), record.BrokenValue(b, string(h[0].Key.Value), h[0].Key == h[0].Place), h[0].Key.Lease)
		}
	case 10:
		e.put(key, "by hand", 0)
	case 11:
		if name := any("/"); name != "" {
			e.put(name, string(e.keys[name].Value), e.keys[name].Lease)
		}
	default:
		for range r.IntN(3) + 1 {
			if name := any(""); name != "" {
				e.remove(name)
				names = slices.DeleteFunc(names, func(n string) bool { return n == name })
			}
		}
	}
}
