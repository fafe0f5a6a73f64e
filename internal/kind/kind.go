// Package kind tells transactions of package wire apart, for gates and tests.
package kind

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Of returns the name of the function that made a transaction, "" if none did. It is for gates and
// tests. It compares the form of the transaction with the forms of samples, and knows a key by its
// name alone: it takes a lock called a/1f-1 for a place, and a slot for K.
func Of(req *pb.TxnRequest) string {
	switch {
	case isBatch(req):
		return "Batch"
	case isAcquireAll(req):
		return "AcquireAllIfFree"
	}
	if name := kinds()[form(req)]; name != "" {
		return name
	}
	return ofKeys(req)
}

// isStates matches the roles of the keys that a StateRead gets: for each contender K, or its slot,
// its place, and perhaps the key that it waits for.
var isStates = regexp.MustCompile(`^(K;place;((K|place);)?)+$`)

// ofKeys returns the kind of a transaction that gets any number of keys, or counts them, and does
// nothing else: of one read, or of several that were sent together. It takes a KeyRead of K and a
// place for a StateRead.
func ofKeys(req *pb.TxnRequest) string {
	if len(req.Compare)+len(req.Failure) > 0 || len(req.Success) == 0 {
		return ""
	}
	var roles strings.Builder
	for _, op := range req.Success {
		key := op.GetRequestRange().GetKey()
		switch is := formOf(op); {
		case len(key) == 0:
			return ""
		case is != formOf(wire.KeyRead(string(key)).Success[0]) && is != formOf(wire.ProbeRead(string(key)).Success[0]):
			return ""
		}
		roles.WriteString(role(key, nil) + ";")
	}
	if isStates.MatchString(roles.String()) {
		return "StateRead"
	}
	return "KeyRead"
}

// isBatch reports whether a transaction is one that Batch returns, of any number of requests.
func isBatch(req *pb.TxnRequest) bool {
	isNoTxn := func(op *pb.RequestOp) bool { return op.GetRequestTxn() == nil }
	return len(req.Compare)+len(req.Failure) == 0 && len(req.Success) > 0 && !slices.ContainsFunc(req.Success, isNoTxn)
}

// isAcquireAll reports the same of AcquireAllIfFree, of more than one.
func isAcquireAll(req *pb.TxnRequest) bool {
	return isAll("AcquireIfFree", 2, 2, req) || isAll("ShareIfFree", 4, 1, req)
}

// isAll reports whether a transaction is several of a kind, each with some comparisons and puts.
func isAll(kind string, cmps, puts int, req *pb.TxnRequest) bool {
	n := len(req.Compare) / cmps
	if n < 2 || len(req.Success) != n*puts || len(req.Failure)%n != 0 {
		return false
	}
	failures := len(req.Failure) / n
	for i := range n {
		one := &pb.TxnRequest{
			Compare: req.Compare[i*cmps : (i+1)*cmps],
			Success: req.Success[i*puts : (i+1)*puts],
			Failure: req.Failure[i*failures : (i+1)*failures],
		}
		if kinds()[form(one)] != kind {
			return false
		}
	}
	return true
}

// kinds maps the form of each transaction to its name.
var kinds = sync.OnceValue(func() map[string]string {
	all := make(map[string]string)
	for _, s := range Samples() {
		all[form(s.Txn)] = s.Name
	}
	return all
})

// A Sample is one transaction of a kind.
type Sample struct {
	Name string
	Txn  *pb.TxnRequest
}

// Samples returns at least one transaction of each kind, one for each form that it can have.
func Samples() (all []Sample) {
	const lock, lease, rev = "k", clientv3.LeaseID(0x1f), int64(7)
	add := func(name string, txn *pb.TxnRequest) { all = append(all, Sample{name, txn}) }
	before := wire.Link{Place: wire.LinkedPlace(lock, 0x2f, 1), Lease: 0x2f, ID: "before"}
	next := wire.Successor{Link: wire.Link{Place: wire.LinkedPlace(lock, 0x3f, 1), Lease: 0x3f, ID: "next"}, Joined: rev}
	for _, linked := range []bool{true, false} {
		p := wire.Place{Lock: lock, Key: wire.UnlinkedPlace(lock, lease, 1), Lease: lease, ID: "me", Record: "{}", Linked: linked}
		if linked {
			p.Key = wire.LinkedPlace(lock, lease, 1)
		}
		other := wire.Place{Lock: "l", Key: wire.LinkedPlace("l", lease, 2), Lease: lease, ID: "me", Record: "{}"}
		for _, again := range []bool{false, true} {
			one := wire.AcquireIfFree(p, again)
			add("AcquireIfFree", one)
			add("AcquireAllIfFree", wire.AcquireAllIfFree([]*pb.TxnRequest{one, wire.AcquireIfFree(other, again)}))
		}
		add("Batch", wire.Batch([]*pb.TxnRequest{wire.Pass(p, rev, next), wire.Release(other, rev, linked)}))
		add("Acquire", wire.Acquire(p))
		add("Claim", wire.Claim(p, rev))
		add("ClaimBehindHolder", wire.ClaimBehindHolder(p, rev))
		add("ClaimOldest", wire.ClaimOldest(p, rev))
		add("Pass", wire.Pass(p, rev, next))
		for _, tail := range []bool{false, true} {
			add("Release", wire.Release(p, rev, tail))
			add("LeaveLost", wire.LeaveLost(p, tail))
			add("Leave", wire.Leave(p, rev, tail, wire.Link{}))
			add("Remove", wire.Remove(p, rev, tail))
		}
		add("Leave", wire.Leave(p, rev, true, before))
		add("LineRead", wire.LineRead(p))
		add("NewestRead", wire.NewestRead(p, rev))
		for _, ahead := range []string{"", lock, before.Place} {
			add("StateRead", wire.StateRead(wire.StateOps(lock, p.Key, ahead)))
		}
		add("HistoryRead", wire.HistoryRead(lock, before.Place, rev))
	}
	shared := wire.Place{Lock: lock, Key: wire.SharedPlace(lock, lease, 1), Lease: lease, ID: "me", Record: "{}", Mode: mode.Shared}
	add("ShareIfFree", wire.ShareIfFree(shared))
	sharedToo := wire.Place{Lock: "l", Key: wire.SharedPlace("l", lease, 2), Lease: lease, ID: "me", Record: "{}", Mode: mode.Shared}
	add("AcquireAllIfFree", wire.AcquireAllIfFree([]*pb.TxnRequest{wire.ShareIfFree(shared), wire.ShareIfFree(sharedToo)}))
	add("Share", wire.Share(shared))
	add("ShareBehindHolder", wire.ShareBehindHolder(shared, rev))
	add("ShareOldest", wire.ShareOldest(shared, rev))
	add("SharedLineRead", wire.SharedLineRead(shared))
	add("SharedNewestRead", wire.SharedNewestRead(shared, rev))
	sits := wire.Place{Lock: lock, Key: wire.SlotPlace(lock, 3, lease, 1), Lease: lease, ID: "me", Record: "{}", Linked: true, Mode: mode.OfSlots(3)}
	follower := wire.Successor{Link: wire.Link{Place: wire.SlotPlace(lock, 3, 0x3f, 1), Lease: 0x3f, ID: "next"}, Joined: rev}
	add("SlotIfFree", wire.SlotIfFree(sits, 1))
	add("SlotTurn", wire.SlotTurn(sits))
	add("SlotBehindHolder", wire.SlotBehindHolder(sits, rev))
	for _, tail := range []bool{false, true} {
		add("TakeSlot", wire.TakeSlot(sits, rev, 1, tail, nil))
		add("TakeSlot", wire.TakeSlot(sits, rev, 1, tail, &follower))
		add("Release", wire.Release(sits.At(2), rev, tail))
		add("LeaveLost", wire.LeaveLost(sits.At(2), tail))
	}
	seat := sits.At(2)
	add("StateRead", wire.StateRead(wire.StateOps(seat.LockKey(), seat.Key, "")))
	add("WrittenRead", wire.WrittenRead(seat, rev))
	add("KeyRead", wire.KeyRead(seat.LockKey()))
	add("RemoveKey", wire.RemoveKey(seat.LockKey(), rev))
	add("Pass", wire.Pass(sits, rev, follower))
	add("SlotLineRead", wire.SlotLineRead(sits))
	add("SlotNewestRead", wire.SlotNewestRead(sits, rev))
	add("KindRead", wire.KindRead(lock))
	add("BusyRead", wire.BusyRead(sits))
	add("WrittenRead", wire.WrittenRead(sits, rev))
	add("RemoveKey", wire.RemoveKey(lock, rev))
	add("RemoveTail", wire.RemoveTail(lock, rev))
	add("BusyRead", wire.BusyRead(shared))
	for _, key := range []string{lock, seat.LockKey(), shared.Key} {
		add("Break", wire.Break(key, "", rev))
		add("Force", wire.Force(key, shared.Key, rev, rev))
	}
	add("Pause", wire.Pause("k/1f", "{}", lease))
	add("Resume", wire.Resume("k/1f", rev))
	for _, p := range []wire.Place{{Lock: lock, Key: wire.LinkedPlace(lock, lease, 1)}, shared, seat} {
		add("NoteSince", wire.NoteSince(p, rev, ""))
		add("EraseSince", wire.EraseSince(p, ""))
	}
	add("KeyRead", wire.KeyRead(lock))
	add("KeyRead", wire.KeyRead(wire.Tail(lock)))
	add("ProbeRead", wire.ProbeRead(lock))
	add("NewestOfAllRead", wire.NewestOfAllRead(lock))
	add("NamesRead", wire.NamesRead(lock, rev))
	add("WrittenRead", wire.WrittenRead(shared, rev))
	return all
}

// form describes a transaction without its keys, values and revisions.
func form(req *pb.TxnRequest) string {
	var b strings.Builder
	for _, c := range req.Compare {
		fmt.Fprintf(&b, "%v %v %s;", c.Target, c.Result, role(c.Key, c.RangeEnd))
	}
	for _, ops := range [][]*pb.RequestOp{req.Success, req.Failure} {
		b.WriteByte('|')
		for _, op := range ops {
			b.WriteString(formOf(op))
		}
	}
	return b.String()
}

func formOf(op *pb.RequestOp) string {
	switch {
	case op.GetRequestRange() != nil:
		r := op.GetRequestRange()
		return fmt.Sprintf("get %s %v %v %v %v %v;", role(r.Key, r.RangeEnd), r.Revision > 0, r.CountOnly, r.KeysOnly, r.MinModRevision > 0, r.Limit)
	case op.GetRequestPut() != nil:
		r := op.GetRequestPut()
		return fmt.Sprintf("put %s %v;", role(r.Key, nil), r.IgnoreValue)
	case op.GetRequestDeleteRange() != nil:
		return fmt.Sprintf("delete %s;", role(op.GetRequestDeleteRange().Key, nil))
	}
	return "(" + form(op.GetRequestTxn()) + ")"
}

// isPlaceName matches the key of a place that LinkedPlace, UnlinkedPlace, SharedPlace or SlotPlace
// returns, and ofSlots how many slots there are, in the name of a key of a semaphore.
var isPlaceName = regexp.MustCompile(`/(~s?|=[0-9]+\.)?-?[0-9a-f]+-[0-9]+$`)
var ofSlots = regexp.MustCompile(`^=[0-9]+`)

// role returns what a key is for a lock, or the keys in a range.
func role(key, end []byte) string {
	switch name := string(key); {
	case len(end) > 0:
		begin, to := strings.LastIndexByte(name, '/')+1, ""
		if strings.HasPrefix(string(end), name[:begin]) {
			to = string(end[begin:])
		}
		return fmt.Sprintf("from %q to %q", ofSlots.ReplaceAllString(name[begin:], "=n"), ofSlots.ReplaceAllString(to, "=n"))
	case wire.ReservedEnd(name) != "":
		return wire.ReservedEnd(name)
	case isPlaceName.MatchString(name):
		return "place"
	}
	return "K"
}
