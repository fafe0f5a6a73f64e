package model

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

// TestWhyOneOfEachLock: etcd makes all comparisons of a batch before it writes anything. Two
// transactions of one lock in it would both find the lock free.
func TestWhyOneOfEachLock(t *testing.T) {
	etcd := smalletcd.New(1)
	etcd.Grant(1)
	alone := wire.Place{Lock: lock, Key: wire.LinkedPlace(lock, 1, 1), Lease: 1, Linked: true}
	shares := wire.Place{Lock: lock, Key: wire.SharedPlace(lock, 1, 2), Lease: 1, Mode: mode.Shared}
	resp, err := etcd.Txn(wire.Batch([]*pb.TxnRequest{wire.AcquireIfFree(alone, false), wire.ShareIfFree(shares)}))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range wire.BatchAnswers(resp) {
		if !one.Succeeded {
			t.Error("one of them is refused: the rule is not needed")
		}
	}
}
