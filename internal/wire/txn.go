package wire

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/mode"
)

// A Place is a contender's place in line as etcd knows it.
type Place struct {
	Lock   string // the lock's key, K
	Key    string // the place's own key
	Lease  clientv3.LeaseID
	ID     string // the value of K while the contender holds the lock
	Record string // the value of the place
	Linked bool   // the tail names the place
	Mode   mode.Mode
	Seat   int // the slot that it has, see At
}

// Tail returns the tail's value that names the place.
func (p Place) Tail() string { return Link{Place: p.Key, ID: p.ID}.Marshal(p.Lock) }

// winning makes a place the holder's: K and the place, written in one revision.
func (p Place) winning() []*operation { return []*operation{put(p.Lock, p.ID, p.Lease), p.put()} }

func (p Place) put() *operation { return put(p.Key, p.Record, p.Lease) }

// state reads K, or the slot that the place has, and the place. Claims, TakeSlot and Leave answer
// with it if they are refused, and requests to join if an earlier try has created the place. Those
// that share the lock answer with the place alone then. The first AcquireIfFree, Pass, Release,
// Remove, RemoveKey and RemoveTail answer with nothing.
func (p Place) state() []*operation { return []*operation{get(p.LockKey()), get(p.Key)} }

// is compares true if the place was last written in a revision.
func (p Place) is(revision int64) *comparison { return modIs(p.Key, revision) }

func (p Place) isTail() []*comparison { return []*comparison{valueIs(Tail(p.Lock), p.Tail())} }

// dropTail deletes the tail if it names the place.
func (p Place) dropTail(named bool) []*operation {
	if !named {
		return nil
	}
	return []*operation{nested(p.isTail(), []*operation{remove(Tail(p.Lock))}, nil)}
}

func txn(cmps []*comparison, then, els []*operation) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: cmps, Success: then, Failure: els}
}

// AcquireIfFree takes the lock if there is neither K nor anything below it. With again it is a try
// after another one: if the place is there, it answers with its state.
func AcquireIfFree(p Place, again bool) *pb.TxnRequest {
	if !again {
		return txn(nobody(p.Lock), p.winning(), nil)
	}
	return txn(nobody(p.Lock), p.winning(), []*operation{p.unlessThere(nil)})
}

// Ops returns how many operations a transaction has, as etcd counts them: those of its own, and
// those of the largest one within it.
func Ops(txn *pb.TxnRequest) int {
	within := 0
	for _, ops := range [][]*pb.RequestOp{txn.Success, txn.Failure} {
		for _, op := range ops {
			if inner := op.GetRequestTxn(); inner != nil {
				within = max(within, Ops(inner))
			}
		}
	}
	return max(len(txn.Compare), len(txn.Success), len(txn.Failure)) + within
}

// AcquireAllIfFree is several requests of AcquireIfFree, or of ShareIfFree, for as many locks, all
// of which are applied or none.
func AcquireAllIfFree(each []*pb.TxnRequest) *pb.TxnRequest {
	all := new(pb.TxnRequest)
	for _, one := range each {
		all.Compare = append(all.Compare, one.Compare...)
		all.Success = append(all.Success, one.Success...)
		all.Failure = append(all.Failure, one.Failure...)
	}
	return all
}

// AcquireAnswers returns what etcd would have answered to each of n requests, which are
// AcquireAllIfFree together.
func AcquireAnswers(resp *pb.TxnResponse, n int) (each []*pb.TxnResponse) {
	ops := len(resp.Responses) / n
	for i := range n {
		each = append(each, &pb.TxnResponse{Header: resp.Header, Succeeded: resp.Succeeded, Responses: resp.Responses[i*ops : (i+1)*ops]})
	}
	return each
}

// Batch is several requests, for as many locks, each of which is applied or refused by itself.
func Batch(each []*pb.TxnRequest) *pb.TxnRequest {
	all := new(pb.TxnRequest)
	for _, one := range each {
		all.Success = append(all.Success, nested(one.Compare, one.Success, one.Failure))
	}
	return all
}

// BatchAnswers returns the answers to each of the requests of a Batch.
func BatchAnswers(resp *pb.TxnResponse) (each []*pb.TxnResponse) {
	for _, one := range resp.Responses {
		inner := one.GetResponseTxn()
		inner.Header = resp.Header
		each = append(each, inner)
	}
	return each
}

// Acquire takes the lock if nobody is there, else a place at the end of the line. If the place is
// there, which an earlier try has created, it answers with its state. Otherwise it answers with
// what was there before: K, and the tail, or for a place that is not linked the newest key below
// K/.
func Acquire(p Place) *pb.TxnRequest {
	// In one transaction a read before a put answers with what was there before the put.
	cmps := nobody(p.Lock)
	els := []*operation{get(p.Lock), newestOf(below(p.Lock), maxRevision), p.put()}
	if p.Linked {
		// The tail is there while somebody waits: then the line is not gone through.
		cmps = slices.Insert(cmps, 1, createIs(Tail(p.Lock), 0))
		els = p.joining()
	}
	return txn(cmps, p.winning(), []*operation{p.unlessThere(els)})
}

// joining puts a linked place in line, and reads what was there before.
func (p Place) joining() []*operation {
	return append([]*operation{get(p.Lock), get(Tail(p.Lock))}, p.linking()...)
}

// linking puts a linked place in line.
func (p Place) linking() []*operation {
	return []*operation{p.put(), put(Tail(p.Lock), p.Tail(), p.Lease)}
}

// unlessThere does something if the place is absent, and reads its state otherwise: a place that is
// written twice would look as if the lock had been granted to it.
func (p Place) unlessThere(do []*operation) *operation {
	return nested([]*comparison{createIs(p.Key, 0)}, do, p.state())
}

// Claim takes the lock for a place that was created in a revision, if nothing below K/ is older.
func Claim(p Place, created int64) *pb.TxnRequest {
	return p.claim(created, noneOlder(p.Lock, created))
}

// ClaimBehindHolder takes the lock for a place that stood directly behind a holder that is gone, if
// there is no stranger's place, and nobody before it who would share the lock. Of the line nobody
// else is gone through. See ClaimAnswer.
func ClaimBehindHolder(p Place, created int64) *pb.TxnRequest {
	unlessBefore := nested([]*comparison{noneSharesBefore(p.Lock, created)}, p.winning(), nil)
	return txn(append([]*comparison{p.is(created), createIs(p.Lock, 0)}, onlyLinked(p.Lock)...),
		[]*operation{nested([]*comparison{nobodyShares(p.Lock)}, p.winning(), []*operation{unlessBefore})}, p.state())
}

// ClaimAnswer returns the part of the answer to a ClaimBehindHolder that says whether the lock was
// taken. If it was not, and has no state, nobody has the lock, and the place is as it was compared.
func ClaimAnswer(resp *pb.TxnResponse) *pb.TxnResponse {
	at := resp
	for range 2 {
		if len(at.Responses) == 0 || at.Responses[0].GetResponseTxn() == nil {
			break
		}
		at = at.Responses[0].GetResponseTxn()
	}
	at.Header = resp.Header
	return at
}

// ClaimOldest takes the lock for a place that is known to be the oldest.
func ClaimOldest(p Place, created int64) *pb.TxnRequest { return p.claim(created) }

func (p Place) claim(created int64, turn ...*comparison) *pb.TxnRequest {
	return txn(append([]*comparison{p.is(created), createIs(p.Lock, 0)}, turn...), p.winning(), p.state())
}

// A Successor is the place to which a holder passes the lock, and the revision that created it.
type Successor struct {
	Link
	Joined int64
}

// Pass gives the lock of the holder with a token to its successor. The comparisons say that we hold
// the lock, that the successor is where it joined, and that neither a stranger is in line nor
// anybody who would share the lock: one between us would find nobody before it, and hold the lock
// beside the successor.
func Pass(p Place, token int64, next Successor) *pb.TxnRequest {
	others := p.onlyOwn()
	if p.Mode.Slots() == 0 {
		others = append(onlyLinked(p.Lock), nobodyShares(p.Lock))
	}
	cmps := append([]*comparison{modIs(p.Lock, token), p.is(token), modIs(next.Place, next.Joined)}, others...)
	return txn(cmps, []*operation{put(p.Lock, next.ID, next.Lease), rewrite(next.Place), remove(p.Key)}, nil)
}

// Release gives the lock of the holder with a token back. Tail says that the tail may name it, here
// as in the following.
func Release(p Place, token int64, tail bool) *pb.TxnRequest {
	return txn([]*comparison{modIs(p.LockKey(), token)}, append([]*operation{remove(p.LockKey()), remove(p.Key)}, p.dropTail(tail)...), nil)
}

// LeaveLost removes the place of a holder whose release was refused, and answers with the state.
func LeaveLost(p Place, tail bool) *pb.TxnRequest {
	return txn(nil, slices.Concat(p.state(), []*operation{remove(p.Key)}, p.dropTail(tail)), nil)
}

// Leave takes a place that waits, created in a revision, out of the line. If the tail names it, it
// names the place before again, unless that place is empty, or gone, or has a slot. Refused, it
// answers with the state.
func Leave(p Place, created int64, tail bool, before Link) *pb.TxnRequest {
	back := p.dropTail(tail)
	if before.Place != "" {
		back = []*operation{nested(p.isTail(), []*operation{nested(waitsSince(before.Place, created),
			[]*operation{put(Tail(p.Lock), before.Marshal(p.Lock), before.Lease)},
			[]*operation{remove(Tail(p.Lock))})}, nil)}
	}
	return txn([]*comparison{p.is(created)}, append([]*operation{remove(p.Key)}, back...), p.state())
}

// Remove deletes a place that was last written in a revision.
func Remove(p Place, written int64, tail bool) *pb.TxnRequest {
	return txn([]*comparison{p.is(written)}, append([]*operation{remove(p.Key)}, p.dropTail(tail)...), nil)
}

// RemoveKey deletes K if it was last written in a revision.
func RemoveKey(lock string, written int64) *pb.TxnRequest {
	return txn([]*comparison{modIs(lock, written)}, []*operation{remove(lock)}, nil)
}

// RemoveTail deletes the tail if it was last written in a revision.
func RemoveTail(lock string, written int64) *pb.TxnRequest { return RemoveKey(Tail(lock), written) }
