package model

import (
	"encoding/binary"
	"hash/maphash"
	"reflect"
	"slices"
	"sort"

	"github.com/etcdlock/etcdlock/internal/standing"
)

// A keeper makes keys of worlds. Worlds with one key go on in the same way: revisions have their
// ranks in it, as nothing but their order matters, and whether they follow each other.
type keeper struct {
	seed      maphash.Seed
	values    []int64 // what there is, strings by their hash
	isRank    []bool  // which of these are revisions
	revisions []int64 // sorted
	ranks     []int64
	b         []byte
	fields    map[reflect.Type][]field
}

func newKeeper() *keeper {
	return &keeper{seed: maphash.MakeSeed(), fields: make(map[reflect.Type][]field)}
}

// plain are the numbers of fields that are not revisions.
var plain = map[string]bool{"lease": true, "Lease": true, "id": true, "places": true, "session": true}

// key returns the key of a world.
func (k *keeper) key(w *World, rest ...int64) uint64 {
	k.values, k.isRank = k.values[:0], k.isRank[:0]
	k.number(w.token, true)
	k.number(w.alone, true)
	for _, token := range w.seats {
		k.number(token, true)
	}
	for _, n := range rest {
		k.number(n, false)
	}
	k.add(reflect.ValueOf(w.wiped))
	k.add(reflect.ValueOf(w.touched))
	k.add(reflect.ValueOf(w.jumps))
	k.add(reflect.ValueOf(w.users))
	of := slices.IndexFunc(w.slots, func(s *slot) bool { return s.n == w.breaker.of })
	k.add(reflect.ValueOf(breaker{w.breaker.key, w.breaker.nonce, of}))
	k.number(int64(min(w.breaker.of, 1)), false)
	k.number(int64(len(w.slots)), false)
	for _, s := range w.slots {
		k.machine(s)
		k.add(reflect.ValueOf(s).Elem())
	}
	k.number(int64(len(w.leases)), false)
	for _, l := range w.leases {
		k.add(reflect.ValueOf(l).Elem())
	}
	for _, l := range w.late {
		l.sender = slices.IndexFunc(w.slots, func(s *slot) bool { return s.n == l.sender })
		k.add(reflect.ValueOf(l))
	}
	k.add(reflect.ValueOf(w.mutexes))
	k.add(reflect.ValueOf(w.pauser))
	for _, n := range w.notes {
		n.of = slices.IndexFunc(w.slots, func(s *slot) bool { return s.n == n.of })
		k.add(reflect.ValueOf(n))
	}

	k.rank(w.etcd.AppendRevisions(k.revisions[:0]))
	k.b = w.etcd.AppendKey(k.b[:0], k.rankOf)
	for i, n := range k.values {
		if k.isRank[i] {
			n = k.rankOf(n)
		}
		k.b = binary.AppendVarint(k.b, n)
	}
	return maphash.Bytes(k.seed, k.b)
}

// machine adds what matters of a slot's machine. What it remembers of a request that was answered,
// and of who stood before it, does not matter any more; of the watches only whether they began in
// time.
func (k *keeper) machine(s *slot) {
	v := reflect.ValueOf(&s.m.Standing).Elem()
	state, created := s.m.State, s.m.Created()
	for _, f := range k.fieldsOf(v.Type()) {
		switch field := v.Field(f.index); f.name {
		case "Request":
			if !s.asked {
				continue
			}
			k.add(field)
		case "Search":
			if state == standing.Looking || state == standing.Claiming {
				k.add(field)
			}
		case "Pos":
			k.position(field, created, state)
		default:
			k.add(field)
		}
	}
}

func (k *keeper) position(v reflect.Value, created int64, state standing.State) {
	for _, f := range k.fieldsOf(v.Type()) {
		switch field := v.Field(f.index); {
		case f.name == "Ahead" && state >= standing.Held:
		case created > 0 && (f.name == "PlaceSince" || f.name == "TailSince"):
			in := int64(0)
			if n := field.Int(); n > 0 && n <= created {
				in = 1
			} else if n > 0 {
				in = 2
			}
			k.number(in, false)
		default:
			k.add(field)
		}
	}
}

func (k *keeper) number(n int64, isRevision bool) {
	k.values, k.isRank = append(k.values, n), append(k.isRank, isRevision)
}

// rank sorts all revisions, some of which are given. Those that follow each other have ranks that
// do.
func (k *keeper) rank(revisions []int64) {
	revisions = append(revisions, 0)
	for i, n := range k.values {
		if k.isRank[i] {
			revisions = append(revisions, n)
		}
	}
	slices.Sort(revisions)
	k.revisions = slices.Compact(revisions)
	k.ranks = append(k.ranks[:0], 0)
	for i := 1; i < len(k.revisions); i++ {
		k.ranks = append(k.ranks, k.ranks[i-1]+min(2, k.revisions[i]-k.revisions[i-1]))
	}
}

func (k *keeper) rankOf(n int64) int64 {
	return k.ranks[sort.Search(len(k.revisions), func(i int) bool { return k.revisions[i] >= n })]
}

// add adds all that there is in a value.
func (k *keeper) add(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range k.fieldsOf(v.Type()) {
			if f.isPlain {
				k.number(v.Field(f.index).Int(), false)
				continue
			}
			k.add(v.Field(f.index))
		}
	case reflect.Int64:
		k.number(v.Int(), true)
	case reflect.Int, reflect.Int32, reflect.Uint8:
		if v.CanInt() {
			k.number(v.Int(), false)
			return
		}
		k.number(int64(v.Uint()), false)
	case reflect.Bool:
		n := int64(0)
		if v.Bool() {
			n = 1
		}
		k.number(n, false)
	case reflect.String:
		k.number(int64(maphash.String(k.seed, v.String())), false)
	case reflect.Pointer:
		if v.IsNil() {
			k.number(0, false)
			return
		}
		k.number(1, false)
		k.add(v.Elem())
	case reflect.Slice, reflect.Array:
		k.number(int64(v.Len()), false)
		for i := range v.Len() {
			k.add(v.Index(i))
		}
	default:
		panic("model: a key of a " + v.Type().String())
	}
}

// A field is one of a struct that matters.
type field struct {
	name    string
	index   int
	isPlain bool // it is a number that is not a revision
}

// fieldsOf returns the fields of a type that matter: not the effects that were done, nor what a
// machine was made with, which the place says.
func (k *keeper) fieldsOf(t reflect.Type) []field {
	known, ok := k.fields[t]
	if !ok {
		for i := range t.NumField() {
			switch name := t.Field(i).Name; name {
			case "Out", "Config", "n", "m":
			default:
				known = append(known, field{name, i, plain[name]})
			}
		}
		k.fields[t] = known
	}
	return known
}
