// Package oplimit learns how many operations etcd takes in one transaction: 128, unless it was set
// up otherwise.
package oplimit

import (
	"cmp"
	"errors"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// usual is how many operations a transaction may have that can do with less.
const usual = 96

// A Limit is what one lease knows. The zero Limit has seen nothing refused.
type Limit struct {
	mu      sync.Mutex
	most    int // 0 as long as nothing was refused
	refused int // the smallest number that was, or 0
}

// OpsAtOnce returns how many operations one transaction may have that can do with less.
func (l *Limit) OpsAtOnce() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.atOnceLocked()
}

func (l *Limit) atOnceLocked() int { return cmp.Or(l.most, usual) }

// Within has a transaction of so many operations sent, unless etcd has refused one of as many, or
// of less, before. It learns from what is refused.
func (l *Limit) Within(ops int, send func() error) error {
	l.mu.Lock()
	mayTake := l.refused == 0 || ops < l.refused
	l.mu.Unlock()
	if !mayTake {
		return rpctypes.ErrTooManyOps
	}
	err := send()
	l.TooMany(err, ops)
	return err
}

// TooMany reports whether etcd refuses a transaction because of its number of operations, and it is
// worth while to make it again with less.
func (l *Limit) TooMany(err error, ops int) bool {
	if !errors.Is(err, rpctypes.ErrTooManyOps) || ops <= 1 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = max(min(ops/2, l.atOnceLocked()), 1)
	l.refused = min(ops, cmp.Or(l.refused, ops))
	return true
}
