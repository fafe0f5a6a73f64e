package wire

import (
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/mode"
)

// since is the end of the name of a key that says since when a lock is held.
const since = "~since"

// Since returns the key that says since when a place has the lock. Of a lock that several have each
// has a key of its own. It is not below K/, where it would stand in line.
func Since(p Place) string {
	if p.Mode == mode.Exclusive {
		return p.Lock + since
	}
	return p.Lock + linked + strings.TrimPrefix(p.Key, Prefix(p.Lock)) + since
}

// NoteSince writes since when the lock is held, under the holder's lease, if it still is, and the
// key is absent: nonce is the token, or of who shares the lock when its place was created. Refused,
// it answers with the key.
func NoteSince(p Place, nonce int64, value string) *pb.TxnRequest {
	key := Since(p)
	return txn([]*comparison{p.isHolder(nonce), createIs(key, 0)}, []*operation{put(key, value, p.Lease)}, []*operation{get(key)})
}

// EraseSince deletes what NoteSince has written.
func EraseSince(p Place, value string) *pb.TxnRequest {
	key := Since(p)
	return txn([]*comparison{valueIs(key, value)}, []*operation{remove(key)}, nil)
}

// isHolder compares true as long as a place has the lock with a nonce, and nobody has asked who
// holds it alone to stop.
func (p Place) isHolder(nonce int64) *comparison {
	switch {
	case p.Mode == mode.Exclusive:
		return modIs(p.Lock, nonce)
	case p.Mode == mode.Shared:
		return createIs(p.Key, nonce)
	}
	return createIs(p.LockKey(), nonce)
}
