// Package etcdlock provides distributed locks on etcd for work that must never run twice at once.
//
//	lock, err := etcdlock.New(client, "/example/lock", id, 60*time.Second)
//	if err != nil { ... }
//	err = lock.Run(ctx, func(ctx context.Context, held *etcdlock.Held) error { // waits its turn
//		return work(ctx) // ctx is done when the lock is lost: context.Cause(ctx) is a *LostError
//	})
//
// [Lock.Lock], [Held.Context] and [Held.Unlock] are the steps of it.
//
// # Safety
//
// What is not guaranteed comes first. A lock on etcd cannot stop work: it can only say, in time,
// that the work must stop. Work that goes on after [Held.Expired] is closed may run beside the next
// holder's. A whole machine that is paused and resumed, and a write that is already on its way, are
// beyond any lock: see Fencing. An operator who revokes the lease or deletes keys below the lock's
// key/ takes the lock away at once. And the lock is only as good as the etcd it lives on: one that
// is restored from a backup has forgotten what came after it.
//
// What is guaranteed: as long as the work ends when it is told to, two contenders for one key never
// work at the same time, whatever the network, etcd, or the processes do. A holder relies on its
// lease only up to the instant at which its last renewal was sent, plus the TTL that etcd granted,
// less a margin of 250 ms and a thousandth of the TTL, and less what [Session.Margin] adds, which
// is at most an eighth of the TTL. The clock goes on while the machine sleeps. A renewal counts
// only after a linearizable read in the same raft term. [Session.Grace] before that instant the
// context ends; at it, Expired is closed.
//
// Turns are first come first served, by the order in which etcd saw the contenders. A contender
// that loses its place (etcd away for longer than the TTL, an operator's hand) takes a new one at
// the end.
//
// # Shared locks, and semaphores
//
// With [Lock.Mode] set to [Shared] a contender has the lock together with others who share it, and
// with nobody who does not: readers and writers, first come first served. With [Slots] as many hold
// it as there are slots. What is said above of two contenders is said of two who may not hold it
// together.
//
// # Many locks
//
// Each [Lock] that [New] returns has a lease of its own, which is renewed while it waits or is
// held. Locks of a [Session] share one, and what looks after it: thousands of them cost little more
// than one. If the lease is lost, all of them are.
//
// A [Set] of a session is several locks that are held together, or not at all. Who takes locks one
// by one, in any order, can wait for others that wait for it; sets cannot.
//
// All locks of one client share a stream of watches. It is opened when it is first needed, and
// closed a second after the last need for it.
//
// # Fencing
//
// [Held.Token] is the ModRevision that the lock's key got when it became ours. It grows from holder
// to holder within one history of the cluster; what holds of a lock that is shared is at [Shared],
// and of one that several hold, each in a slot, at [Slots].
// A store that remembers the largest token it has seen and refuses smaller ones is safe even from
// what no lock can prevent. An etcd transaction needs no memory: guard it with [Held.IsHolder].
//
// A backup that is restored takes revisions, and so tokens, back, unless it is restored with a
// revision bump.
//
// # Compatibility
//
// A contender keeps its place in line where etcd's concurrency.Mutex, etcdctl lock and the v3lock
// service keep theirs: under key/, named after its lease, in the order of creation. They wait for
// us and we wait for them, first come first served. Mixed with them, compare our token with their
// Header().Revision, not with their key's CreateRevision. Nothing but locks belongs below key/. A
// Mutex on "a" waits for any key below "a/", also for the places of a lock "a/b"; our locks do not
// disturb each other so. If somebody creates the lock's key by hand, etcdlock waits until it is
// deleted; a Mutex ignores it.
//
// Etcd before 3.5.23 and 3.6.5 may renew a lease that was revoked. The etcd grpc-proxy answers
// renewals itself and is not supported: connect to the members.
//
// A client for locks should reconnect quickly. By default gRPC waits up to 120 s between tries;
// pass grpc.WithConnectParams with a backoff.Config whose MaxDelay is below 1 s in
// clientv3.Config.DialOptions. And it should notice a connection that is dead: set
// DialKeepAliveTime to 10 s and DialKeepAliveTimeout to some seconds, which together are below the
// TTL. By itself etcd's client writes a lot to stderr while etcd does not answer; with
// clientv3.Config.Logger set to zap.NewNop() it writes nothing.
//
// # Stability
//
// From v1 on, programs that use this package go on to compile, and what its comments say stays
// true. Tell errors apart with errors.Is and errors.As: their texts may change, and so may logs.
// Structs may get more fields, and there may be more values of [Reason]. Versions with one major
// version share a line in etcd, and keep each other out. docs/stability.md has all of it.
package etcdlock
