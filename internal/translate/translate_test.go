package translate_test

import (
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// The places of somebody who wants the lock alone, shares it, and wants a slot.
var (
	alone  = wire.Place{Lock: "k", Key: wire.LinkedPlace("k", 0x1f, 1), Lease: 0x1f, ID: "me", Record: "{}", Linked: true}
	shares = wire.Place{Lock: "k", Key: wire.SharedPlace("k", 0x1f, 1), Lease: 0x1f, ID: "me", Record: "{}", Mode: mode.Shared}
	sits   = wire.Place{Lock: "k", Key: wire.SlotPlace("k", 3, 0x1f, 1), Lease: 0x1f, ID: "me", Record: "{}", Linked: true, Mode: mode.OfSlots(3)}
)

// requests are all that machines ask for, each with the transactions that are made of it for who
// wants the lock alone, for who shares it, and for who wants a slot; "" where nobody asks.
var requests = map[message.Name][3]string{
	message.AcquireIfFree:     {"AcquireIfFree", "ShareIfFree", "SlotIfFree"},
	message.AcquireOrJoin:     {"Acquire", "Share", "SlotTurn"},
	message.Claim:             {"Claim", "", ""},
	message.ClaimBehindHolder: {"ClaimBehindHolder", "ShareBehindHolder", "SlotBehindHolder"},
	message.ClaimOldest:       {"ClaimOldest", "ShareOldest", "ClaimOldest"},
	message.TakeSlot:          {"", "", "TakeSlot"},
	message.Pass:              {"Pass", "", "Pass"},
	message.GiveBack:          {"Release", "Remove", "Release"},
	message.LeaveLost:         {"LeaveLost", "LeaveLost", "LeaveLost"},
	message.Leave:             {"Leave", "Leave", "Leave"},
	message.Remove:            {"Remove", "Remove", "Remove"},
	message.RemoveKey:         {"RemoveKey", "", "RemoveKey"},
	message.RemoveTail:        {"RemoveTail", "", "RemoveTail"},
	message.ReadBusy:          {"BusyRead", "BusyRead", "BusyRead"},
	message.ReadNewest:        {"NewestOfAllRead", "", "NewestOfAllRead"},
	message.ReadLine:          {"LineRead", "SharedLineRead", "SlotLineRead"},
	message.ReadFar:           {"NewestRead", "SharedNewestRead", "SlotNewestRead"},
	message.ReadHistory:       {"HistoryRead", "HistoryRead", "HistoryRead"},
	message.ReadState:         {"StateRead", "StateRead", "StateRead"},
	message.ReadTail:          {"KeyRead", "KeyRead", "KeyRead"},
	message.ReadWritten:       {"WrittenRead", "WrittenRead", "WrittenRead"},
	message.ReadKind:          {"KindRead", "KindRead", "KindRead"},
}

// TestTxn: each request becomes the transaction of its name, or that of the mode; and what is said
// to be a read writes nothing.
func TestTxn(t *testing.T) {
	next := message.Successor{Link: message.Link{Place: wire.LinkedPlace("k", 0x2f, 1), Lease: 0x2f, ID: "next"}, Joined: 8}
	for name, want := range requests {
		for i, p := range []wire.Place{alone, shares, sits} {
			if want[i] == "" {
				continue
			}
			r := message.Request{Name: name, Rev: 7}
			switch name {
			case message.Pass:
				r.Next = next
			case message.ReadHistory:
				r.Place = next.Place
			}
			for _, again := range []bool{false, true} {
				txn := translate.Txn(p, r, again)
				if got := kind.Of(txn); got != want[i] {
					t.Errorf("%s of mode %v becomes %q, want %q", name, p.Mode, got, want[i])
				}
				if is := !writes(txn); translate.IsRead(p, r) != is {
					t.Errorf("%s of mode %v: it is a read: %v", name, p.Mode, is)
				}
			}
		}
	}
}

func writes(txn *pb.TxnRequest) bool {
	return slices.ContainsFunc(slices.Concat(txn.Success, txn.Failure), func(op *pb.RequestOp) bool {
		inner := op.GetRequestTxn()
		return op.GetRequestPut() != nil || op.GetRequestDeleteRange() != nil || inner != nil && writes(inner)
	})
}

// TestSeats: with a seat a request is about its slot, in place of K.
func TestSeats(t *testing.T) {
	const slot = "k/=3#1"
	for _, r := range []message.Request{
		{Name: message.ReadState}, {Name: message.ReadTail, Place: "k"}, {Name: message.ReadWritten},
	} {
		r.Seat = 2
		if got := translate.Txn(sits, r, false).Success[0].GetRequestRange().GetKey(); string(got) != slot {
			t.Errorf("%s reads %q", r.Name, got)
		}
	}
	for _, name := range []message.Name{message.GiveBack, message.RemoveKey} {
		txn := translate.Txn(sits, message.Request{Name: name, Rev: 7, Seat: 2}, false)
		if got := txn.Success[0].GetRequestDeleteRange().GetKey(); string(got) != slot || string(txn.Compare[0].Key) != slot {
			t.Errorf("%s deletes %q", name, got)
		}
	}
}

// TestEvents: what an event says of the key that it is about.
func TestEvents(t *testing.T) {
	link := wire.Link{Place: wire.LinkedPlace("k", 0x2f, 1), Lease: 0x2f, ID: "next"}
	kv := func(key, value string, lease int64) *mvccpb.Event {
		return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), Lease: lease, CreateRevision: 3, ModRevision: 9}}
	}
	if e := translate.Event(alone, message.OnTail, kv(wire.Tail("k"), link.Marshal("k"), 0x2f)); e.Link.Place != link.Place || e.Link.ID != "next" || e.KV.Mod != 9 {
		t.Errorf("the tail says %+v", e)
	}
	if e := translate.Event(alone, message.OnTail, kv(wire.Tail("k"), link.Marshal("k"), 0x3f)); e.Link != (message.Link{}) {
		t.Errorf("a tail with another lease than it names says %+v", e)
	}
	if e := translate.Event(sits, message.OnSlots, kv("k/=3#2", "x", 1)); e.Slot != 2 {
		t.Errorf("slot 2 is %d", e.Slot)
	}
	if e := translate.Event(alone, message.OnAhead, kv("k/~1-1", `{"v":1,"id":"a"}`, 1)); !e.Record || e.ID != "a" {
		t.Errorf("the predecessor's record says %+v", e)
	}
	if e := translate.Event(alone, message.OnAhead, kv("k/~1-1", "by hand", 1)); e.Record {
		t.Errorf("what is not a record says %+v", e)
	}
	deleted := kv("k", "", 0)
	deleted.Type, deleted.Kv.CreateRevision = mvccpb.DELETE, 0
	if e := translate.Event(alone, message.OnLock, deleted); !e.Deleted || e.KV.Mod != 9 || e.KV.Exists() {
		t.Errorf("a deletion says %+v", e)
	}
}
