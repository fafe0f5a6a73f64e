package holding

import (
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
)

// IsHolder returns the comparison that holds as long as the holding does. Of nil, and after it was
// given back or is known to be broken, it never holds.
func IsHolder(h *Holding) clientv3.Cmp {
	switch {
	case h == nil:
		return clientv3.Compare(clientv3.ModRevision("\x00"), "<", 0)
	case h.HasLeft(), errors.As(h.knownLoss(), new(*record.Break)):
		return clientv3.Compare(clientv3.ModRevision(h.Place.Key), "<", 0)
	case h.Place.Mode == mode.Shared: // nobody writes it but to break the lock
		return clientv3.Compare(clientv3.ModRevision(h.Place.Key), "=", h.Created())
	case h.Place.Mode.Slots() > 0: // who deletes it gives it to others, wherever the place is
		return clientv3.Compare(clientv3.ModRevision(h.Place.At(h.Seat()).LockKey()), "=", h.Token())
	}
	return clientv3.Compare(clientv3.ModRevision(h.Place.Key), "=", h.Token())
}

// Closed is a channel that is closed.
var Closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
