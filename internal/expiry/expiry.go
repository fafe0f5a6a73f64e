// Package expiry tells the end of a lease from a release. They look the same in etcd: all keys go
// in one revision. So it asks etcd now and then how long leases have left.
package expiry

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Numbers of questions to etcd about leases.
const (
	atOnce    = 8
	mostOfOne = 64                     // in one round
	between   = 100 * time.Millisecond // rounds
	limit     = time.Second            // for one answer
	early     = time.Second            // a lease is asked for before it can end
	often     = 400 * time.Millisecond // it is asked for when it is about to end

	// fresh is how old the last answer may be if the lease is to have ended by itself. Etcd tells
	// whole seconds: if the lease can have ended so soon after an answer, less than a second was
	// left of it. After an older answer it may have been renewed.
	fresh = time.Second
)

// Leases knows of the leases of holders until when they cannot have ended. It asks etcd at most 640
// times a second, about the leases first that can end first.
type Leases struct {
	client *clientv3.Client

	mu    sync.Mutex
	known map[clientv3.LeaseID]*lease
}

type lease struct {
	users int       // holders
	asked time.Time // when etcd was asked that last said that it is there
	until time.Time // the lease cannot end before
	due   time.Time // when etcd is to be asked again
}

// New returns Leases of which nothing is known.
func New(client *clientv3.Client) *Leases {
	return &Leases{client: client, known: make(map[clientv3.LeaseID]*lease)}
}

// Use takes note of a holder.
func (ls *Leases) Use(id clientv3.LeaseID) {
	if id == clientv3.NoLease {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.known[id]
	if l == nil {
		l = new(lease)
		ls.known[id] = l
	}
	l.users++
}

// Leave takes note that somebody has stopped holding. What is known of the lease is kept for as
// long as it says something.
func (ls *Leases) Leave(id clientv3.LeaseID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.known[id]; l != nil {
		l.users = max(l.users-1, 0)
	}
}

// Ask asks etcd for leases until ctx is done.
func (ls *Leases) Ask(ctx context.Context) {
	pace := time.NewTicker(between)
	defer pace.Stop()
	for {
		var all sync.WaitGroup
		slots := make(chan struct{}, atOnce)
		for _, id := range ls.due(time.Now()) {
			slots <- struct{}{}
			all.Go(func() { ls.askFor(ctx, id); <-slots })
		}
		all.Wait()
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

// due returns the leases that etcd is to be asked for now, and forgets those that nobody holds
// anything with.
func (ls *Leases) due(now time.Time) (ids []clientv3.LeaseID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for id, l := range ls.known {
		switch {
		case l.users > 0 && !l.due.After(now):
			ids = append(ids, id)
		case l.users == 0 && l.until.Before(now):
			delete(ls.known, id)
		}
	}
	if len(ids) > mostOfOne {
		slices.SortFunc(ids, func(a, b clientv3.LeaseID) int {
			return cmp.Compare(ls.known[a].until.UnixNano(), ls.known[b].until.UnixNano())
		})
		ids = ids[:mostOfOne]
	}
	return ids
}

// askFor asks etcd for a lease, and reports whether it is there, and whether etcd has told.
func (ls *Leases) askFor(ctx context.Context, id clientv3.LeaseID) (isThere, told bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent := time.Now()
	resp, err := ls.client.TimeToLive(ctx, id)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.known[id]
	if l == nil {
		l = new(lease) // nobody holds anything with it any more
	}
	if err != nil || resp.TTL < 0 {
		l.due = time.Now().Add(limit)
		return false, err == nil
	}
	left := time.Duration(resp.TTL) * time.Second
	if until := sent.Add(left); until.After(l.until) {
		l.until = until
	}
	l.asked = sent
	l.due = sent.Add(max(left-early, often))
	return true, true
}

// HasEnded reports whether the lease of a holder had ended when its keys were seen to go, and
// whether that is known.
func (ls *Leases) HasEnded(ctx context.Context, id clientv3.LeaseID, seen time.Time) (ended, known bool) {
	if id == clientv3.NoLease {
		return false, true
	}
	ls.mu.Lock()
	l := ls.known[id]
	if l == nil {
		l = new(lease)
	}
	asked, until := l.asked, l.until
	ls.mu.Unlock()
	if seen.Before(until) {
		return false, true
	}
	if isThere, told := ls.askFor(ctx, id); isThere || !told {
		return false, isThere
	}
	ended = !asked.IsZero() && seen.Sub(asked) < fresh
	return ended, ended
}
