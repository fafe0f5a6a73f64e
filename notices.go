package etcdlock

import (
	"context"
	"log/slog"
	"sync"
)

// mostNotices is how many are kept for a user who does not take them. Older ones go.
const mostNotices = 256

// notices are what the user's own functions and loggers are told, in order and by a goroutine of
// its own: they may block, or call us, and the renewals, the loss and the release must not wait for
// that.
type notices struct {
	mu    sync.Mutex
	queue []func()
	tells bool // the goroutine runs
}

// post has the user told something.
func (n *notices) post(tell func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue = append(n.queue, tell)
	n.queue = n.queue[max(0, len(n.queue)-mostNotices):]
	if !n.tells {
		n.tells = true
		go n.tell()
	}
}

func (n *notices) tell() {
	for next := n.next(); next != nil; next = n.next() {
		next()
	}
}

// next returns nil when all is told, and the goroutine is to end.
func (n *notices) next() (tell func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tells = len(n.queue) > 0; n.tells {
		tell, n.queue = n.queue[0], n.queue[1:]
	}
	return tell
}

// log writes a message to the user's logger.
func (n *notices) log(to *slog.Logger, level slog.Level, message string, args ...any) {
	if ctx := context.Background(); to.Enabled(ctx, level) {
		n.post(func() { to.Log(ctx, level, message, args...) })
	}
}
