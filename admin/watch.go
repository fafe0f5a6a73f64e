package admin

import (
	"context"
	"fmt"
	"iter"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/follow"
)

// Watch returns what happens to the locks whose keys begin with a prefix, as etcd tells it; the
// empty prefix means all. What it does not guarantee:
//
//   - That an event is news: more may have happened since.
//   - What was before the EventBegan, which is the first one. Who has a lock then, or waits, shows
//     with its next event; [List] tells it at any time.
//   - That times are exact. They are when an event was seen here.
//   - That an EventReleased is a release, see there. Near the end of a lease, within a second, an
//     EventLost may be one.
//
// All events of a lock come in etcd's order, each once: a holding of a millisecond has both of its.
// If the connection breaks, or etcd has no leader, Watch goes on by itself, and misses nothing; an
// EventAway and an EventBack say so. If etcd has compacted meanwhile what happened, or was
// restored from a backup, an EventMissed says so. To know that, Watch may read all locks again. The
// client must be as clientv3.New returns it: a Watcher that was replaced is not used.
//
// An error is the last thing that it yields. It blocks until ctx is done, and the error is its
// cause then. It fails if the first reading of the locks does, and if etcd denies permission: it
// needs to read the prefix. Etcd sends the values of all keys below the prefix that are written;
// those that are not of locks are dropped. To tell releases from leases that have ended it asks
// etcd about the leases of holders, each before it can end, at most 640 a second.
func Watch(ctx context.Context, client *clientv3.Client, prefix string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		from, end, isAsked := below(prefix)
		w := follow.Watch{Client: client, From: from, End: end, IsAsked: isAsked}
		if err := follow.Run(ctx, w, func(c follow.Change) bool {
			e := event(c)
			return e.Kind == "" || yield(e, nil)
		}); err != nil {
			yield(Event{}, fmt.Errorf("watching locks below %q: %w", prefix, err))
		}
	}
}
