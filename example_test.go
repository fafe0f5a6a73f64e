package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// endpoints names the etcd that the examples run on.
func endpoints() []string { return []string{etcdtest.SharedEndpoint()} }

// connect returns a client of that etcd.
func connect() *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints()})
	if err != nil {
		log.Fatal(err)
	}
	return client
}

// Run waits for its turn, works, and gives the lock back.
func Example() {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	lock, err := etcdlock.New(client, "/example/nightly", "host-a", 60*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	defer lock.Close(ctx)

	err = lock.Run(ctx, func(ctx context.Context, held *etcdlock.Held) error {
		fmt.Println("nobody else works") // the work ends when ctx is done
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: nobody else works
}

// The work ends when its context is done. Here somebody deletes the lock's key meanwhile.
func ExampleLock_Run() {
	ctx, client := context.Background(), connect()
	defer client.Close()
	lock, err := etcdlock.New(client, "/example/run", "host-a", 60*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Close(ctx)

	err = lock.Run(ctx, func(work context.Context, held *etcdlock.Held) error {
		if _, err := client.Delete(ctx, lock.Key()); err != nil {
			return err
		}
		<-work.Done()
		return context.Cause(work)
	})
	var lost *etcdlock.LostError
	if errors.As(err, &lost) {
		fmt.Println("the work was stopped, the lock was lost:", lost.Reason)
	}
	// Output: the work was stopped, the lock was lost: its key was deleted from outside
}

// The context of Lock bounds the wait, and that of the holding the work.
func ExampleLock_Lock() {
	ctx, client := context.Background(), connect()
	defer client.Close()
	lock, err := etcdlock.New(client, "/example/steps", "host-a", 60*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Close(ctx)

	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	held, err := lock.Lock(wait)
	if err != nil {
		log.Fatal(err)
	}
	work := held.Context(ctx)
	fmt.Println("while it is held:", context.Cause(work))

	if err := held.Unlock(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("given back:", errors.Is(context.Cause(work), etcdlock.ErrNotHeld))
	// Output:
	// while it is held: <nil>
	// given back: true
}

// A job that runs somewhere already is left out.
func ExampleLock_TryLock() {
	ctx, client := context.Background(), connect()
	defer client.Close()

	job := func(host string, work func()) {
		lock, err := etcdlock.New(client, "/example/job", host, 60*time.Second)
		if err != nil {
			log.Fatal(err)
		}
		defer lock.Close(ctx)
		switch _, err := lock.TryLock(ctx); {
		case err == nil:
			fmt.Println(host, "runs it")
			work()
		case errors.Is(err, etcdlock.ErrBusy):
			fmt.Println(host, "leaves it out")
		default:
			log.Fatal(err)
		}
	}
	job("host-a", func() { job("host-b", func() {}) })
	// Output:
	// host-a runs it
	// host-b leaves it out
}

// A BusyError says who holds the lock, and how long the line is.
func ExampleBusyError() {
	ctx, client := context.Background(), connect()
	defer client.Close()
	session, err := etcdlock.NewSession(client, 60*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close(ctx)

	for _, host := range []string{"host-a", "host-b"} {
		lock, err := session.NewLock("/example/busy", host)
		if err != nil {
			log.Fatal(err)
		}
		_, err = lock.TryLock(ctx)
		var busy *etcdlock.BusyError
		if errors.As(err, &busy) {
			fmt.Printf("%s holds it, a waiter gets place %d\n", busy.Holder, busy.Place)
		}
	}
	// Output: host-a holds it, a waiter gets place 1
}

// The locks of a session share one lease: thousands of them cost little more than one.
func ExampleSession() {
	ctx, client := context.Background(), connect()
	defer client.Close()
	session, err := etcdlock.NewSession(client, 60*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	session.Grace = 10 * time.Second // for the work to stop, if the lease is lost
	defer session.Close(ctx)         // gives all locks back

	leases := map[clientv3.LeaseID]bool{}
	for n := range 100 {
		lock, err := session.NewLock(fmt.Sprint("/example/session/", n), "host-a")
		if err != nil {
			log.Fatal(err)
		}
		held, err := lock.Lock(ctx)
		if err != nil {
			log.Fatal(err)
		}
		leases[held.Lease()] = true
	}
	fmt.Println("leases of 100 locks:", len(leases))
	// Output: leases of 100 locks: 1
}

// A set holds several locks, or none. Another one that names them in another order waits its turn.
func ExampleSession_NewSet() {
	ctx, client := context.Background(), connect()
	defer client.Close()
	session, err := etcdlock.NewSession(client, 60*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close(ctx)

	set, err := session.NewSet([]string{"/example/to", "/example/from"}, "host-a")
	if err != nil {
		log.Fatal(err)
	}
	held, err := set.Lock(ctx)
	if err != nil {
		log.Fatal(err)
	}
	work := held.Context(ctx) // done as soon as one of them is about to be lost
	fmt.Println(set.Keys(), work.Err(), held.Token("/example/from") == held.Token("/example/to"))
	if err := held.Unlock(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: [/example/from /example/to] <nil> true
}

// Etcd itself refuses a write that is guarded so, once the lock is not held any more, however late
// the write arrives.
func ExampleHeld_IsHolder() {
	ctx, client := context.Background(), connect()
	defer client.Close()
	lock, err := etcdlock.New(client, "/example/guarded", "host-a", 60*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Close(ctx)

	write := func(guard clientv3.Cmp) {
		put := clientv3.OpPut("/example/state", "done")
		answer, err := client.Txn(ctx).If(guard).Then(put).Commit()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("written:", answer.Succeeded)
	}
	var guard clientv3.Cmp
	err = lock.Run(ctx, func(_ context.Context, held *etcdlock.Held) error {
		guard = held.IsHolder()
		write(guard)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	write(guard)
	// Output:
	// written: true
	// written: false
}

// A store other than etcd is fenced by the token: it remembers the largest one that it has seen,
// and refuses what comes with a smaller one.
func ExampleHeld_Token() {
	ctx, client := context.Background(), connect()
	defer client.Close()

	var largest int64 // the store's
	write := func(token int64, text string) {
		if token < largest {
			fmt.Println("refused:", text)
			return
		}
		largest = token
		fmt.Println("stored:", text)
	}
	var tokens []int64
	for _, host := range []string{"host-a", "host-b"} {
		lock, err := etcdlock.New(client, "/example/fenced", host, 60*time.Second)
		if err != nil {
			log.Fatal(err)
		}
		defer lock.Close(ctx)
		err = lock.Run(ctx, func(_ context.Context, held *etcdlock.Held) error {
			tokens = append(tokens, held.Token())
			write(held.Token(), "what "+host+" writes")
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	write(tokens[0], "what host-a wrote, and comes late")
	// Output:
	// stored: what host-a writes
	// stored: what host-b writes
	// refused: what host-a wrote, and comes late
}
