package debts

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

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

// TestForgotten: of many leases those without keys are forgotten first, then the oldest, and what
// stays is not. As long as one that was forgotten lasts, it is not said that all is paid.
func TestForgotten(t *testing.T) {
	d := New(clientv3.NewCtxClient(t.Context()))
	d.payer <- struct{}{} // nobody pays
	paid := func(context.Context) error { return nil }
	d.OweStaying(paid)
	ends := boottime.Now().Add(time.Hour)
	for range most - 1 {
		d.owe(debt{remove: paid, until: ends, ends: ends})
	}
	d.OweGrant(1, time.Minute)
	if d.forgotten >= ends || len(d.owed) != most {
		t.Errorf("%d are owed", len(d.owed))
	}
	d.owe(debt{remove: paid, until: ends, ends: ends})
	if d.forgotten != ends || len(d.owed) != most || !d.owed[0].stays() {
		t.Errorf("%d are owed", len(d.owed))
	}
	<-d.payer
	if err := d.Pay(t.Context()); err != errForgotten {
		t.Errorf("Pay: %v", err)
	}
	d.forgotten = boottime.Now()
	if err := d.Pay(t.Context()); err != nil {
		t.Errorf("Pay: %v", err)
	}
}

// TestPaidBesideEachOther: one debt that is not answered does not hold the others up, and what has
// gone by itself is not owed any more.
func TestPaidBesideEachOther(t *testing.T) {
	d := New(clientv3.NewCtxClient(t.Context()))
	var all sync.WaitGroup
	all.Add(most)
	for range most {
		d.owe(debt{ends: 1, remove: func(ctx context.Context) error {
			all.Done()
			all.Wait()
			return errors.New("no answer")
		}})
	}
	if err := d.Pay(t.Context()); err == nil {
		t.Error("Pay says that all is paid")
	}
	if err := d.Pay(t.Context()); err != nil {
		t.Errorf("what has gone is still owed: %v", err)
	}
}
