package main

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/guard"
)

// takeOverWhenPossible takes the lock from a holder on this machine that crashes, or has crashed, until ctx is done.
func (h *holder) takeOverWhenPossible(ctx context.Context) {
	guard.OnAttestation(ctx, func() { h.takeOver(ctx) })
}

// takeOver ends the lease of a holder that is gone, if its guard attests that nothing of its command is left. Everybody
// else's lease runs out by itself.
func (h *holder) takeOver(ctx context.Context) bool {
	resp, err := h.client.Get(ctx, h.key)
	if err != nil || len(resp.Kvs) == 0 || !guard.Attested(resp.Kvs[0].Lease) {
		return false
	}
	lease := resp.Kvs[0].Lease
	if _, err := h.client.Revoke(ctx, clientv3.LeaseID(lease)); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		h.voice.logger(h.verbose).Warn("cannot end the lease of the last holder, waiting for it to run out", "cause", err)
		return false
	}
	guard.Forget(lease)
	h.voice.notef("the last holder of lock %q was killed, and nothing of its command is left: not waiting for its TTL", h.key)
	return true
}
