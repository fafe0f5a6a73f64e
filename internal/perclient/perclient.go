// Package perclient keeps what all locks of this process that use one etcd client share.
package perclient

import (
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// IdleTimeout is how long something is kept that nobody uses: the next turn may come soon.
const IdleTimeout = time.Second

// Idler is something that can be ended when nobody uses it.
type Idler interface {
	// EndIfIdle ends it if nobody uses it, and reports whether it did.
	EndIfIdle() (ended bool)
}

// A Registry has at most one T for each client. The caller locks it around access to Of.
type Registry[T Idler] struct {
	sync.Mutex
	Of map[*clientv3.Client]T
}

// New returns an empty registry.
func New[T Idler]() *Registry[T] { return &Registry[T]{Of: make(map[*clientv3.Client]T)} }

// EndIdle ends what a client has if nobody uses it.
func (r *Registry[T]) EndIdle(client *clientv3.Client) {
	r.Lock()
	defer r.Unlock()
	if one, ok := r.Of[client]; ok && one.EndIfIdle() {
		delete(r.Of, client)
	}
}
