// Package follow follows who holds locks and who waits for them, from one revision of etcd to the
// next, to tell people what has changed.
package follow

import (
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/line"
)

// A Kind says what has happened.
type Kind string

// The kinds of changes.
const (
	Began    Kind = "began" // what happens from here on is told
	Joined   Kind = "joined"
	Left     Kind = "left"
	Acquired Kind = "acquired"
	Passed   Kind = "passed"
	Released Kind = "released"
	Lost     Kind = "lost"
	Broken   Kind = "broken"
	Missed   Kind = "missed" // changes may have been: etcd has forgotten them, or was restored
	Away     Kind = "away"   // etcd does not answer
	Back     Kind = "back"   // it does again
)

// A Change is something that has happened to a lock in one revision, or to the watch.
type Change struct {
	Kind     Kind
	Time     time.Time // when it was seen here
	Revision int64
	Lock     string

	Holder *Holder // who has the lock, or had it
	From   *Holder // who passed it on

	Place *mvccpb.KeyValue // of who joined, or left, the line
	Turn  int              // of who joined: 1 is next

	Resync bool  // it is a difference to what was known before; when it happened is not known
	Unsure bool  // Released: the lease may have ended
	Since  int64 // Missed: all up to this revision was told
	Err    error // Away: what etcd said, nil if nothing
}

// A Holder is one who has a lock, or had it.
type Holder struct {
	line.Holder
	Line line.Line // the lock, without those who stand there

	told bool // that it has the lock
}
