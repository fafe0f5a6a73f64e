package main

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/line"
)

// takeOverWhenPossible takes the locks from holders on this machine that crash, or have crashed,
// until ctx is done.
func (h *holder) takeOverWhenPossible(ctx context.Context) {
	guard.OnAttestation(ctx, func() {
		// What is attested stays so, and etcd may be away at the moment.
		for {
			if _, err := h.takeOver(ctx); !isAway(err) {
				return
			}
			select {
			case <-time.After(takeOverAgain):
			case <-ctx.Done():
				return
			}
		}
	})
}

// isAway reports whether an error says that etcd does not answer at the moment.
func isAway(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

// takeOverAgain is the time between two tries to find out what etcd knows.
const takeOverAgain = 300 * time.Millisecond

// takeOver ends the leases of holders that are gone, if it is attested that nothing of their
// commands is left: by the guard, or by the holder itself where etcd did not confirm the release.
// Everybody else's lease runs out by itself. It reports whether it has ended one, and returns the
// first error.
func (h *holder) takeOver(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.connectTimeout)
	defer cancel()
	for _, key := range h.keys {
		took, failed := h.takeOverOne(ctx, key)
		if done = done || took; err == nil {
			err = failed
		}
	}
	return done, err
}

// takeOverOne is takeOver for one of the locks.
func (h *holder) takeOverOne(ctx context.Context, key string) (done bool, err error) {
	leases, err := h.leasesOf(ctx, key)
	if err != nil {
		return false, err
	}
	for _, lease := range leases {
		if !guard.Attested(int64(lease)) {
			continue
		}
		if _, err := h.client.Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			h.voice.logger(h.verbose).Debug("cannot end the lease of the last holder", "cause", err)
			return done, err
		}
		done = true
		guard.Forget(int64(lease))
		h.voice.notef("the last holder of lock %q is gone, and nothing of its command is left: not waiting for its TTL", key)
	}
	return done, nil
}

// leasesOf returns the leases of all who have a lock. The line is read only where several may have
// it.
func (h *holder) leasesOf(ctx context.Context, key string) (all []clientv3.LeaseID, err error) {
	if h.mode <= 0 {
		resp, err := h.client.Get(ctx, key)
		switch {
		case err != nil:
			return nil, err
		case len(resp.Kvs) > 0:
			return []clientv3.LeaseID{clientv3.LeaseID(resp.Kvs[0].Lease)}, nil
		}
	}
	l, err := line.Read(ctx, h.client, key)
	if err != nil {
		return nil, err
	}
	for _, holder := range l.Holders {
		all = append(all, holder.Lease)
	}
	return all, nil
}
