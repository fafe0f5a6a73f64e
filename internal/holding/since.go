package holding

import (
	"context"
	"log/slog"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/lease"
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
	place   int           // of the holding among those whose notes are due later
	at      int64         // when the lock was acquired, in ns since 1970
	over    bool          // it is not held any more
	wrote   bool          // that has begun
	writing chan struct{} // closed when it is over; nil while nothing is written
}

// Acquired has it noted since when the lock is held, once it has been for some time.
func (h *Holding) Acquired() {
	n := &h.note
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at = time.Now().UnixNano(); !n.over {
		h.lock.Notes.add(h)
	}
}

// writeNote asks until etcd answers, if only that it has no space, or the lock is not held.
func (h *Holding) writeNote() {
	n := &h.note
	if !n.begin() {
		return
	}
	defer n.done()
	final := func(err error) bool { return n.isOver() || lease.IsFinal(err) }
	_, err := retry.Do(context.Background(), h.Lease.First(), final, func(ctx context.Context) (*pb.TxnResponse, error) {
		return putNote(ctx, h)
	})
	if err != nil {
		h.Say(slog.LevelDebug, "etcd was not told since when the lock is held", "key", h.Place.Lock, "cause", err)
	}
}

// putNote writes the note of a holding, unless somebody has written something else there. What is
// left of an earlier holding, which has a lesser nonce, goes before.
func putNote(ctx context.Context, h *Holding) (resp *pb.TxnResponse, err error) {
	place, nonce := h.noted()
	note := wire.NoteSince(place, nonce, h.note.text(nonce))
	if resp, err = h.ask(ctx, note); err != nil || resp.Succeeded {
		return resp, err
	}
	there := wire.Got(resp, 0)
	if there == nil || there.Lease == 0 {
		return resp, nil
	}
	if old := record.SinceOf(there.Value); old.Token >= nonce || old.Marshal() != string(there.Value) {
		return resp, nil
	}
	if _, err = h.ask(ctx, wire.EraseSince(place, string(there.Value))); err != nil {
		return nil, err
	}
	return h.ask(ctx, note)
}

// noted returns the place as a note names it, and the nonce.
func (h *Holding) noted() (place wire.Place, nonce int64) {
	place, nonce = h.Place.At(h.Seat()), h.Token()
	if place.Mode == mode.Shared {
		nonce = h.Created()
	}
	return place, nonce
}

func (n *note) text(nonce int64) string {
	return record.Since{Token: nonce, At: time.Unix(0, n.at).UTC()}.Marshal()
}

// ask makes one try of a transaction, together with what is asked for other locks of the session if
// etcd is busy with these.
func (h *Holding) ask(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if q := h.Lease.Batches; q != nil {
		return q.Do(ctx, h.Place.Lock, req)
	}
	return h.Lease.Txn(ctx, req)
}

// begin reports whether the note is to be written.
func (n *note) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		return false
	}
	n.wrote, n.writing = true, make(chan struct{})
	return true
}

func (n *note) done() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.writing)
	n.writing = nil
}

func (n *note) isOver() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.over
}

// endNote has nothing noted any more. It reports whether something may be written, and returns what
// is closed when that is over, or nil.
func (h *Holding) endNote() (wrote bool, writing <-chan struct{}) {
	n := &h.note
	n.mu.Lock()
	n.over = true
	wrote, writing = n.wrote, n.writing
	n.mu.Unlock()
	h.lock.Notes.remove(h)
	return wrote, writing
}

// eraseWithin bounds what an Unlock takes longer as its note is deleted. It is sent beside the
// release, and mostly answered with it.
const eraseWithin = 50 * time.Millisecond

// eraseNotes deletes the notes of holdings, if there are any, beside what the caller does, and
// returns what waits for that, not for long. What cannot be deleted goes with the lease.
func eraseNotes(ctx context.Context, all ...*Holding) (wait func()) {
	var erased []<-chan struct{}
	for _, h := range all {
		if wrote, writing := h.endNote(); wrote {
			done := make(chan struct{})
			erased = append(erased, done)
			go func() {
				defer close(done)
				eraseNote(ctx, h, writing)
			}()
		}
	}
	return func() {
		if len(erased) == 0 {
			return
		}
		late := time.After(eraseWithin)
		for _, done := range erased {
			select {
			case <-done:
			case <-late:
				return
			}
		}
	}
}

// eraseNote deletes a note when it is written. It is tried for as long as the lease may last: a
// session, or the next holding, may keep that one.
func eraseNote(ctx context.Context, h *Holding, writing <-chan struct{}) {
	ctx, cancel := lease.ToEnd(context.WithoutCancel(ctx), h.Lease.ValidUntil(), debts.Limit)
	defer cancel()
	if writing != nil {
		select {
		case <-writing:
		case <-ctx.Done():
			return
		}
	}
	place, nonce := h.noted()
	retry.Do(ctx, h.Lease.First(), retry.IsRefused, func(ctx context.Context) (*pb.TxnResponse, error) {
		return h.ask(ctx, wire.EraseSince(place, h.note.text(nonce)))
	})
}
