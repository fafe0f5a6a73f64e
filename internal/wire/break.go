package wire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/record"
)

// Break asks a holder to stop: it writes over the key that makes it one, K, a slot, or the place of
// one who shares the lock, if that was last written in the revision of the nonce. The key stays
// under the holder's lease, so nobody else gets the lock before the holder has stopped, or its
// lease has ended. Refused, it answers with the key.
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

// BrokenValue returns what a Break writes over a key with a value, which is the record of a place
// if the key is that, and else the id of a holder.
func BrokenValue(b *record.Break, value string, isPlace bool) string {
	if isPlace {
		return b.Over(value)
	}
	return b.Value(value)
}
