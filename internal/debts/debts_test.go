package debts

import (
	"context"
	"errors"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/boottime"
)

// TestPaidAlthoughSomebodyElseFails: what stays is paid in the background, also if it was just then
// that somebody else tried in vain.
func TestPaidAlthoughSomebodyElseFails(t *testing.T) {
	d := New(clientv3.NewCtxClient(t.Context()))
	failing, goOn, paid := make(chan struct{}), make(chan struct{}), make(chan struct{})
	calls := 0
	d.OweStaying(func(context.Context) error {
		switch calls++; calls {
		case 1:
			close(failing)
			<-goOn
			return errors.New("no answer")
		case 2:
			close(paid)
		}
		return nil
	})
	failed := make(chan error)
	// Or the background does; then there is nothing to do.
	go func() { failed <- d.Pay(t.Context()) }()
	<-failing
	if err := d.PayNow(t.Context()); err == nil {
		t.Error("two have paid at once")
	}
	close(goOn)
	<-failed
	<-paid
}

// TestForgotten: of many leases the oldest ones are forgotten, which run out; what stays is not.
func TestForgotten(t *testing.T) {
	d := New(clientv3.NewCtxClient(t.Context()))
	d.payer <- struct{}{} // nobody pays
	d.OweStaying(func(context.Context) error { return nil })
	for id := range clientv3.LeaseID(2 * most) {
		d.OweGrant(id+1, Limit, boottime.Instant(id+1))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.owed) != most || !d.owed[0].stays || d.owed[1].until != most+2 {
		t.Errorf("%d are owed: %+v", len(d.owed), d.owed)
	}
}
