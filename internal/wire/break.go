package wire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Break asks a holder to stop: it writes over the key that makes it one, K, a slot, or the place of
// one who shares the lock, if that was last written in the revision of the nonce. The key stays
// under the holder's lease, so nobody else gets the lock before the holder has stopped, or its
// lease has ended. Refused, it answers with the key. It also writes over the place of a pause, when
// that has its turn.
func Break(key, value string, nonce int64) *pb.TxnRequest {
	over := putting(&pb.PutRequest{Key: []byte(key), Value: []byte(value), IgnoreLease: true})
	return txn([]*comparison{modIs(key, nonce)}, []*operation{over}, []*operation{get(key)})
}

// Force takes the lock away from a holder: it deletes the key that makes it one, and its place, if
// both were last written in these revisions. Without a key of its own the place is all. Refused, it
// answers with both.
func Force(key, place string, keyMod, placeMod int64) *pb.TxnRequest {
	if key == place {
		return txn([]*comparison{modIs(place, placeMod)}, []*operation{remove(place)}, []*operation{get(place)})
	}
	return txn([]*comparison{modIs(key, keyMod), modIs(place, placeMod)}, []*operation{remove(key), remove(place)}, []*operation{get(key), get(place)})
}

// Pause puts a pause at the end of the line. Refused, it answers with the place, which an earlier
// try has created.
func Pause(place, value string, lease clientv3.LeaseID) *pb.TxnRequest {
	return txn([]*comparison{createIs(place, 0)}, []*operation{put(place, value, lease)}, []*operation{get(place)})
}

// Resume takes a pause out of the line whose place was created in a revision. Refused, it answers
// with the place.
func Resume(place string, created int64) *pb.TxnRequest {
	return txn([]*comparison{createIs(place, created)}, []*operation{remove(place)}, []*operation{get(place)})
}
