package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// work stands for what must not run twice at once. It ends when its context is done.
func work(context.Context) error { return nil }

func ExampleLock_Run() {
	var client *clientv3.Client // of clientv3.New
	ctx := context.Background()
	lock, err := etcdlock.New(client, "/example/lock", "host-a", 60*time.Second)
	if err != nil {
		return
	}
	err = lock.Run(ctx, func(ctx context.Context, held *etcdlock.Held) error {
		fmt.Println("fencing token:", held.Token())
		return work(ctx)
	})
	var lost *etcdlock.LostError
	if errors.As(err, &lost) {
		fmt.Println("stopped, as", lost.Reason)
	}
}

func ExampleLock_Lock() {
	var client *clientv3.Client // of clientv3.New
	ctx := context.Background()
	lock, err := etcdlock.New(client, "/example/lock", "host-a", 60*time.Second)
	if err != nil {
		return
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second) // for the wait alone
	defer cancel()
	held, err := lock.Lock(wait)
	if err != nil {
		return
	}
	defer held.Unlock(ctx)
	work(held.Context(ctx))
}

func ExampleLock_TryLock() {
	var client *clientv3.Client // of clientv3.New
	ctx := context.Background()
	lock, err := etcdlock.New(client, "/example/lock", "host-a", 60*time.Second)
	if err != nil {
		return
	}
	held, err := lock.TryLock(ctx)
	var busy *etcdlock.BusyError
	if errors.As(err, &busy) {
		fmt.Println("held by", busy.Holder)
		return
	}
	if err != nil {
		return
	}
	defer held.Unlock(ctx)
	work(held.Context(ctx))
}

// A write to etcd itself is refused once the lock is somebody else's, however late it arrives.
func ExampleHeld_IsHolder() {
	var client *clientv3.Client // of clientv3.New
	ctx := context.Background()
	lock, err := etcdlock.New(client, "/example/lock", "host-a", 60*time.Second)
	if err != nil {
		return
	}
	lock.Run(ctx, func(ctx context.Context, held *etcdlock.Held) error {
		_, err := client.Txn(ctx).If(held.IsHolder()).Then(clientv3.OpPut("/example/state", "done")).Commit()
		return err
	})
}

// Thousands of locks of one process hang on one lease.
func ExampleSession() {
	var client *clientv3.Client // of clientv3.New
	ctx := context.Background()
	session, err := etcdlock.NewSession(client, 60*time.Second)
	if err != nil {
		return
	}
	session.Grace = 10 * time.Second
	defer session.Close(ctx)
	for _, name := range []string{"one", "two"} {
		lock, err := session.NewLock("/example/"+name, "host-a")
		if err != nil {
			return
		}
		lock.Run(ctx, func(ctx context.Context, _ *etcdlock.Held) error { return work(ctx) })
	}
}
