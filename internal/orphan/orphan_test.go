package orphan

import (
	"testing"

	"github.com/etcdlock/etcdlock/internal/message"
)

// TestSearch: what the place has left is removed, and nothing else.
func TestSearch(t *testing.T) {
	s := Search{Lock: "/k", Lease: 1, Create: 10, Place: "/k/1"}
	ours := message.KV{Create: 12, Mod: 12, Lease: 1, Value: "me"}
	found := func(kv message.KV) message.Answer { return message.Answer{Found: kv} }
	names := func(place string) message.Answer {
		return message.Answer{Found: message.KV{Create: 11, Mod: 11}, Link: message.Link{Place: place}}
	}
	var (
		tail    = message.Request{Name: message.ReadTail}
		noTail  = message.Request{Name: message.RemoveTail, Rev: 11}
		lock    = message.Request{Name: message.ReadTail, Place: "/k"}
		written = message.Request{Name: message.ReadWritten, Rev: 12}
		noLock  = message.Request{Name: message.RemoveKey, Rev: 12}
		end     = message.Request{}
	)
	for name, one := range map[string]struct {
		after  message.Request
		answer message.Answer
		want   message.Request
		failed bool
	}{
		"the tail names it":           {tail, names("/k/1"), noTail, false},
		"the tail names somebody":     {tail, names("/k/2"), lock, false},
		"no tail":                     {tail, message.Answer{}, lock, false},
		"the tail may not be read":    {tail, message.Answer{Outcome: message.Denied}, end, true},
		"no answer":                   {tail, message.Answer{Outcome: message.Unknown}, end, true},
		"the tail is removed":         {noTail, message.Answer{}, lock, false},
		"the tail names another now":  {noTail, message.Answer{Outcome: message.Refused}, lock, false},
		"the tail may not be removed": {noTail, message.Answer{Outcome: message.Denied}, end, true},
		"K may be ours":               {lock, found(ours), written, false},
		"K is older":                  {lock, found(message.KV{Create: 9, Mod: 9, Lease: 1, Value: "me"}), end, false},
		"K has another lease":         {lock, found(message.KV{Create: 12, Mod: 12, Lease: 2, Value: "me"}), end, false},
		"K was overwritten":           {lock, found(message.KV{Create: 11, Mod: 12, Lease: 1, Value: "you"}), written, false},
		"no K":                        {lock, message.Answer{}, end, false},
		"K has its place":             {written, message.Answer{Found: ours, Some: true}, end, false},
		"K has no place":              {written, message.Answer{Found: ours}, noLock, false},
		"K is removed":                {noLock, message.Answer{}, end, false},
	} {
		next, more, failed := s.Next(one.after, one.answer)
		if failed != one.failed || more != (one.want != end) || more && next != one.want {
			t.Errorf("%s: %+v, %v, %v", name, next, more, failed)
		}
	}
	s.Create = 0
	if next, more, failed := s.Next(tail, message.Answer{Outcome: message.Denied}); next != lock || !more || failed {
		t.Errorf("whoever may not read the tail has not written it: %+v, %v, %v", next, more, failed)
	}
	if s.First() != tail {
		t.Errorf("it begins with %+v", s.First())
	}
	s.Place = ""
	if s.First() != lock {
		t.Errorf("without a tail it begins with %+v", s.First())
	}
}

// TestSearchOfASlot: a slot is removed if no place was written when it was created. Whoever has
// overwritten it since has not taken it from its holder.
func TestSearchOfASlot(t *testing.T) {
	s := Search{Lock: "/k", Lease: 1, Create: 10, Place: "/k/=2.1-1"}
	slot := message.KV{Create: 11, Mod: 12, Lease: 1, Value: "by hand"}
	anew := message.KV{Create: 13, Mod: 13, Lease: 1, Value: "you"}
	read := message.Request{Name: message.ReadTail, Place: "/k", Seat: 1}
	written := message.Request{Name: message.ReadWritten, Rev: 11, Seat: 1}
	for name, one := range map[string]struct {
		after  message.Request
		answer message.Answer
		want   message.Request
	}{
		"it may be ours":    {read, message.Answer{Found: slot}, message.Request{Name: message.ReadWritten, Rev: 11}},
		"it has its place":  {written, message.Answer{Found: slot, Some: true}, message.Request{}},
		"it has no place":   {written, message.Answer{Found: slot}, message.Request{Name: message.RemoveKey, Rev: 12}},
		"it is another one": {written, message.Answer{Found: anew}, message.Request{}},
		"it is gone":        {written, message.Answer{}, message.Request{}},
	} {
		next, more, failed := s.Next(one.after, one.answer)
		if failed || more != (one.want != message.Request{}) || more && next != one.want {
			t.Errorf("%s: %+v, %v, %v", name, next, more, failed)
		}
	}
}
