package wire

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Kind returns the name of the function that made a transaction, for logs, gates and tests; "" if
// none did. It compares the form of the transaction with those of a sample of each, so it takes
// only keys with the names of places for places: a lock called a/1f-1 can be mistaken for one.
func Kind(req *pb.TxnRequest) string {
	switch {
	case isBatch(req):
		return "Batch"
	case isAcquireAll(req):
		return "AcquireAllIfFree"
	}
	return kinds()[form(req)]
}

// isBatch reports whether a transaction is one that Batch returns, of any number of requests.
func isBatch(req *pb.TxnRequest) bool {
	isNoTxn := func(op *pb.RequestOp) bool { return op.GetRequestTxn() == nil }
	return len(req.Compare)+len(req.Failure) == 0 && len(req.Success) > 0 && !slices.ContainsFunc(req.Success, isNoTxn)
}

// isAcquireAll reports the same of AcquireAllIfFree, of more than one.
func isAcquireAll(req *pb.TxnRequest) bool {
	const cmps, puts = 2, 2 // of each
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
		if kinds()[form(one)] != "AcquireIfFree" {
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
	before := Link{Place: LinkedPlace(lock, 0x2f, 1), Lease: 0x2f, ID: "before"}
	next := Successor{Link{Place: LinkedPlace(lock, 0x3f, 1), Lease: 0x3f, ID: "next"}, rev}
	for _, linked := range []bool{true, false} {
		p := Place{Lock: lock, Key: UnlinkedPlace(lock, lease, 1), Lease: lease, ID: "me", Record: "{}", Linked: linked}
		if linked {
			p.Key = LinkedPlace(lock, lease, 1)
		}
		other := Place{Lock: "l", Key: LinkedPlace("l", lease, 2), Lease: lease, ID: "me", Record: "{}"}
		for _, again := range []bool{false, true} {
			one := AcquireIfFree(p, again)
			add("AcquireIfFree", one)
			add("AcquireAllIfFree", AcquireAllIfFree([]*pb.TxnRequest{one, AcquireIfFree(other, again)}))
		}
		add("Batch", Batch([]*pb.TxnRequest{Pass(p, rev, next), Release(other, rev, linked)}))
		add("Acquire", Acquire(p))
		add("Claim", Claim(p, rev))
		add("ClaimBehindHolder", ClaimBehindHolder(p, rev))
		add("ClaimOldest", ClaimOldest(p, rev))
		add("Pass", Pass(p, rev, next))
		for _, tail := range []bool{false, true} {
			add("Release", Release(p, rev, tail))
			add("LeaveLost", LeaveLost(p, tail))
			add("Leave", Leave(p, rev, tail, Link{}))
			add("Remove", Remove(p, rev, tail))
		}
		add("Leave", Leave(p, rev, true, before))
		add("LineRead", LineRead(p))
		add("NewestRead", NewestRead(p, rev))
		for _, ahead := range []string{"", lock, before.Place} {
			add("StateRead", StateRead(StateOps(lock, p.Key, ahead)))
		}
		add("HistoryRead", HistoryRead(lock, before.Place, rev))
	}
	shared := Place{Lock: lock, Key: SharedPlace(lock, lease, 1), Lease: lease, ID: "me", Record: "{}", Shared: true}
	add("ShareIfFree", ShareIfFree(shared))
	add("Share", Share(shared))
	add("ShareBehindHolder", ShareBehindHolder(shared, rev))
	add("ShareOldest", ShareOldest(shared, rev))
	add("SharedLineRead", SharedLineRead(shared))
	add("SharedNewestRead", SharedNewestRead(shared, rev))
	add("RemoveKey", RemoveKey(lock, rev))
	add("RemoveTail", RemoveTail(lock, rev))
	add("BusyRead", BusyRead(lock))
	add("KeyRead", KeyRead(lock))
	add("ProbeRead", ProbeRead(lock))
	add("NewestOfAllRead", NewestOfAllRead(lock))
	add("NamesRead", NamesRead(lock, rev))
	add("WrittenRead", WrittenRead(lock, rev))
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

// isPlaceName matches the key of a place that LinkedPlace, UnlinkedPlace or SharedPlace returns.
var isPlaceName = regexp.MustCompile(`/(~s?)?-?[0-9a-f]+-[0-9]+$`)

// role returns what a key is for a lock, or the keys in a range.
func role(key, end []byte) string {
	switch name := string(key); {
	case len(end) > 0:
		begin, to := strings.LastIndexByte(name, '/')+1, ""
		if strings.HasPrefix(string(end), name[:begin]) {
			to = string(end[begin:])
		}
		return fmt.Sprintf("from %q to %q", name[begin:], to)
	case IsTail(name):
		return "tail"
	case isPlaceName.MatchString(name):
		return "place"
	}
	return "K"
}
