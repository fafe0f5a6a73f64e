//go:build linux

package faults

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// A standing is a place in line, as somebody sees it who only looks on.
type standing struct {
	key   string
	id    string // of its contender; empty for those of other lockers
	lease clientv3.LeaseID
	mod   int64         // its revision: that of the lock, if it holds it
	since time.Duration // when it was seen first
	gone  time.Duration // when that was seen; 0: it is there
}

// A holding is that somebody had the lock.
type holding struct {
	id    string
	token int64
}

// line is what was seen of a lock in etcd.
type line struct {
	stop    context.CancelFunc
	stopped chan struct{}
	key     string

	mu       sync.Mutex
	broken   bool  // what is next to be seen was compacted
	last     int64 // the last revision that was seen
	all      []*standing
	holdings []holding
	slots    []holding // the same of slots: then K is not the lock, but the right to be next
}

// watch looks on until close.
func watch(ctx context.Context, client *clientv3.Client, key string) (*line, error) {
	resp, err := client.Get(ctx, key, clientv3.WithCountOnly())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	l := &line{stop: stop, stopped: make(chan struct{}), key: key, last: resp.Header.Revision}
	go func() {
		defer close(l.stopped)
		for ctx.Err() == nil && !l.broken {
			l.look(client.Watch(ctx, key, clientv3.WithPrefix(), clientv3.WithRev(l.revision()+1)))
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return l, nil
}

// revision returns the last revision that was seen.
func (l *line) revision() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// look looks on until a watch ends. Where etcd has users that happens if no leader is there for its
// login, or a member is behind that does not know the token yet.
func (l *line) look(events clientv3.WatchChan) {
	for resp := range events {
		for _, event := range resp.Events {
			l.see(event)
		}
		if resp.CompactRevision != 0 {
			l.mu.Lock()
			l.broken = true
			l.mu.Unlock()
		}
	}
}

func (l *line) close() {
	l.stop()
	<-l.stopped
}

func (l *line) see(event *clientv3.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, kv := string(event.Kv.Key), event.Kv
	l.last = kv.ModRevision
	put := event.Type == clientv3.EventTypePut
	switch {
	case key == l.key && put:
		l.holdings = append(l.holdings, holding{string(kv.Value), kv.ModRevision})
	case isSlot(l.key, key):
		if put {
			l.slots = append(l.slots, holding{string(kv.Value), kv.ModRevision})
		}
	case !strings.HasPrefix(key, wire.Prefix(l.key)):
	case !put:
		if s := l.at(key); s != nil {
			s.gone = beat.Now()
		}
	default:
		s := l.at(key)
		if s == nil {
			s = &standing{key: key, lease: clientv3.LeaseID(kv.Lease), since: beat.Now()}
			if entry, err := record.Parse(kv.Value); err == nil {
				s.id = entry.ID
			}
			l.all = append(l.all, s)
		}
		s.mod = kv.ModRevision
		if wire.IsShared(l.key, kv) { // nobody stands before the readers of a trial
			l.holdings = append(l.holdings, holding{s.id, s.mod})
		}
	}
}

// isSlot reports whether a key is a slot of the lock.
func isSlot(lock, key string) bool {
	n, rest := wire.SlotsOf(lock, key)
	return n > 0 && strings.HasPrefix(rest, "#")
}

// at returns the standing under a key that is there.
func (l *line) at(key string) *standing {
	for _, s := range l.all {
		if s.key == key && s.gone == 0 {
			return s
		}
	}
	return nil
}

// waiting returns how many are in line, the holder among them.
func (l *line) waiting() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		if s.gone == 0 {
			n++
		}
	}
	return n
}

// of returns the standing of a contender: by its id, or where there are no ids by its number in
// line.
func (l *line) of(id string, number int) (standing, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		if s.gone == 0 && s.id == id {
			return *s, true
		}
	}
	if number < len(l.all) && l.all[number].id == "" {
		return *l.all[number], true
	}
	return standing{}, false
}

// since returns when the last place of a contender's was seen first, if there was one.
func (l *line) since(id string) (since time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		if s.id == id && id != "" {
			since, ok = s.since, true
		}
	}
	return since, ok
}

// seen returns all that was seen.
func (l *line) seen() (all []standing, holdings []holding, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		err = errors.New("the line was compacted before it was seen")
	}
	for _, s := range l.all {
		all = append(all, *s)
	}
	if len(l.slots) > 0 {
		return all, append(holdings, l.slots...), err
	}
	return all, append(holdings, l.holdings...), err
}
