// Package notices tells the user's own functions and loggers what has happened, in order and by a
// goroutine of its own: they may block, or call the library, and the renewals, the loss and the
// release must not wait for that.
//
// Lock order: Queue.mu is the last one. What is told is called without it.
package notices

import (
	"context"
	"log/slog"
	"sync"
)

// most is how many notices are kept for a user who does not take them. The oldest ones go first.
const most = 256

// A Queue has the notices that were not told yet. The zero Queue is empty.
type Queue struct {
	mu    sync.Mutex
	queue []func()
	tells bool // the goroutine runs
}

// Post has the user told something. It does not block.
func (n *Queue) Post(tell func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue = append(n.queue, tell)
	n.queue = n.queue[max(0, len(n.queue)-most):]
	if !n.tells {
		n.tells = true
		go n.tell()
	}
}

func (n *Queue) tell() {
	for next := n.next(); next != nil; next = n.next() {
		next()
	}
}

// next returns nil when all is told, and the goroutine is to end.
func (n *Queue) next() (tell func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tells = len(n.queue) > 0; n.tells {
		tell, n.queue = n.queue[0], n.queue[1:]
	}
	return tell
}

// Log writes a message to the user's logger, if there is one. It does not block. Whether the logger
// wants messages of that level is asked when it is told: its handler is a function of the user's
// as well.
func (n *Queue) Log(to *slog.Logger, level slog.Level, message string, args ...any) {
	if to != nil && to.Handler() != slog.DiscardHandler {
		n.Post(func() { to.Log(context.Background(), level, message, args...) })
	}
}
