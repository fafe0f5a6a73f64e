package holding

import (
	"context"
	"log/slog"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// noteAfter is how long a lock has to be held before etcd is told since when. Those that are held
// for less pay nothing for it.
const noteAfter = time.Second

// A note tells whoever looks since when a lock is held. Nothing depends on it: it is not written
// where that is not allowed, and is not read by those who hold the lock or wait for it.
type note struct {
	mu      sync.Mutex
	timer   *time.Timer   // nil before the lock is held
	over    bool          // it is not held any more
	written chan struct{} // closed when the note was written, or not; nil: that has not begun
	value   string
}

// Acquired has it noted since when the lock is held, once it has been for some time.
func (h *Holding) Acquired() {
	at := time.Now().UTC()
	h.note.mu.Lock()
	defer h.note.mu.Unlock()
	if !h.note.over {
		h.note.timer = time.AfterFunc(noteAfter, func() { h.writeNote(at) })
	}
}

// writeNote asks until etcd answers, or the lock is not held any more.
func (h *Holding) writeNote(at time.Time) {
	nonce := h.Token()
	if h.Place.Mode == mode.Shared {
		nonce = h.Created()
	}
	n := &h.note
	n.mu.Lock()
	if n.over {
		n.mu.Unlock()
		return
	}
	n.value, n.written = record.Since{Token: nonce, At: at}.Marshal(), make(chan struct{})
	n.mu.Unlock()
	defer close(n.written)
	final := func(err error) bool { return n.isOver() || retry.IsRefused(err) }
	_, err := retry.Do(context.Background(), h.Lease.First(), final, func(ctx context.Context) (*pb.TxnResponse, error) {
		return h.ask(ctx, wire.NoteSince(h.noted(), nonce, n.value))
	})
	if err != nil {
		h.Say(slog.LevelDebug, "etcd was not told since when the lock is held", "key", h.Place.Lock, "cause", err)
	}
}

// noted is the place as a note names it.
func (h *Holding) noted() wire.Place { return h.Place.At(h.Seat()) }

// ask makes one try of a transaction, together with what is asked for other locks of the session if
// etcd is busy with these.
func (h *Holding) ask(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if q := h.Lease.Batches; q != nil {
		return q.Do(ctx, h.Place.Lock, req)
	}
	return h.Lease.Txn(ctx, req)
}

func (n *note) isOver() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.over
}

// end has nothing noted any more. It returns what is closed when all is written, nil if nothing
// was.
func (n *note) end() (written <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	if n.timer != nil {
		n.timer.Stop()
	}
	return n.written
}

// eraseNote deletes the note, if there is one, beside what the caller does, and returns what waits
// for that. What cannot be deleted goes with the lease.
func (h *Holding) eraseNote(ctx context.Context) (wait func()) {
	written := h.note.end()
	if written == nil {
		return func() {}
	}
	erased := make(chan struct{})
	go func() {
		defer close(erased)
		ctx, cancel := context.WithTimeout(ctx, debts.Limit)
		defer cancel()
		select {
		case <-written:
			h.ask(ctx, wire.EraseSince(h.noted(), h.note.value))
		case <-ctx.Done():
		}
	}()
	return func() { <-erased }
}
