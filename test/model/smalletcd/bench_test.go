package smalletcd_test

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

// inLine returns a store in which one place holds a lock and the others wait, and these places.
func inLine(b *testing.B) (*smalletcd.Store, []wire.Place) {
	b.Helper()
	s := smalletcd.New(1)
	var line []wire.Place
	for n := range int64(16) {
		lease := leases[n%4]
		s.Grant(int64(lease))
		line = append(line, newPlace("k", lease, n, true))
		must(b, s, wire.Acquire(line[n]))
	}
	s.Forget(s.Revision() - 16)
	return s, line
}

// BenchmarkTxn measures one transaction of each kind where 18 keys are there, with the clone that
// an exploration makes before each.
func BenchmarkTxn(b *testing.B) {
	base, line := inLine(b)
	token := base.Revision() - 15 // each place took one revision
	link := wire.Link{Place: line[1].Key, Lease: line[1].Lease, ID: line[1].ID}
	next := wire.Successor{Link: link, Joined: token + 1}
	free := base.Clone()
	must(b, free, wire.Release(line[0], token, false))
	for _, one := range []struct {
		name string
		from *smalletcd.Store
		txn  *pb.TxnRequest
	}{
		{"Acquire", base, wire.Acquire(newPlace("k", leases[0], 99, true))},
		{"AcquireIfFree", base, wire.AcquireIfFree(newPlace("free", leases[0], 1, true), false)},
		{"Claim", free, wire.Claim(line[1], token+1)},
		{"Pass", base, wire.Pass(line[0], token, next)},
		{"Release", base, wire.Release(line[0], token, true)},
		{"Leave", base, wire.Leave(line[15], token+15, true, wire.Link{})},
		{"StateRead", base, wire.StateRead(wire.StateOps("k", line[1].Key, line[0].Key))},
		{"LineRead", base, wire.LineRead(line[1])},
		{"HistoryRead", base, wire.HistoryRead("k", line[8].Key, token+8)},
	} {
		resp, err := one.from.Clone().Txn(one.txn)
		if err != nil || resp.Succeeded != (one.name != "Acquire") {
			b.Fatalf("%s: %v, %v", one.name, resp, err)
		}
		b.Run(one.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := one.from.Clone().Txn(one.txn); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTurns measures turns of one contender, without clones and without history: a transaction
// is half of it.
func BenchmarkTurns(b *testing.B) {
	s := granted(b, 1)
	place := newPlace("k", leases[0], 1, true)
	acquire := wire.AcquireIfFree(place, false)
	for b.Loop() {
		must(b, s, acquire, wire.Release(place, s.Revision()+1, false))
		s.Forget(s.Revision())
	}
}

func BenchmarkClone(b *testing.B) {
	s, _ := inLine(b)
	b.ReportAllocs()
	var clone *smalletcd.Store
	for b.Loop() {
		clone = s.Clone()
	}
	if clone.Key() != s.Key() {
		b.Error("the clone is another")
	}
}

// BenchmarkKey measures the key of 18 keys and a history of 16 revisions.
func BenchmarkKey(b *testing.B) {
	s, _ := inLine(b)
	b.ReportAllocs()
	var key []byte
	for b.Loop() {
		key = s.AppendKey(key[:0], func(revision int64) int64 { return revision })
	}
	b.ReportMetric(float64(len(key)), "bytes")
}
