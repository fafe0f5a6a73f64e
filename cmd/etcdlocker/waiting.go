package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/term"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// A waitingLine tells who holds the lock that is waited for: one line that is kept up to date while
// this process has a terminal, else one plain line for each lock that is waited for.
type waitingLine struct {
	voice    *voice
	client   *clientv3.Client
	keys     keys
	mode     etcdlock.Mode
	waits    <-chan struct{} // receives when a lock is waited for, maybe another one than before
	terminal *os.File        // nil: none, or one on which nothing can be erased

	told   string // the key that the last plain line was about
	seen   string // who had the lock when etcd answered last
	warned bool   // of the order
	above  string // the greatest key that this process runs under, for warnOfOrder

	since   time.Time // when the holder with this nonce has got the lock, if that is known
	nonce   int64
	noSince bool // this user may not read it
}

func (h *holder) newWaitingLine(stderr *os.File) *waitingLine {
	w := &waitingLine{voice: h.voice, client: h.client, keys: h.keys, mode: h.mode, waits: h.waits}
	for _, one := range h.heldAbove() {
		w.above = max(w.above, one.key())
	}
	if kind := os.Getenv("TERM"); kind != "" && kind != "dumb" && term.IsTerminal(int(stderr.Fd())) {
		w.terminal = stderr
	}
	return w
}

// run tells until ctx is done.
func (w *waitingLine) run(ctx context.Context) {
	defer w.voice.setStatus("")
	const again = time.Second
	tick := time.NewTicker(again)
	defer tick.Stop()
	for said, silent := false, false; ; {
		switch front := w.terminal != nil && inForeground(); {
		case !front && said:
		case front:
			w.show(ctx)
		default:
			said = w.say(ctx, silent)
			silent = !said
		}
		if said && w.terminal == nil {
			tick.Stop()
		}
		select {
		case <-tick.C:
		case <-w.waits:
			said = false
			tick.Reset(again)
		case <-ctx.Done():
			return
		}
	}
}

// say says it once for each lock. That etcd does not answer is said for the time being, unless it
// was, or another lock was waited for before, and say returns false.
func (w *waitingLine) say(ctx context.Context, silent bool) bool {
	text, key := w.describe(ctx)
	w.warnOfOrder(key)
	known := key != ""
	silent = silent || w.told != ""
	if ctx.Err() == nil && (known && key != w.told || !known && !silent) {
		w.voice.notef("%s", text)
		w.told = key
	}
	return known
}

// show brings the line on the terminal up to date.
func (w *waitingLine) show(ctx context.Context) {
	text, key := w.describe(ctx)
	w.warnOfOrder(key)
	if ctx.Err() != nil {
		return
	}
	text = "etcdlocker: " + text
	if columns, _, err := term.GetSize(int(w.terminal.Fd())); err == nil && columns > 4 {
		text = fit(text, columns-1)
	}
	w.voice.setStatus(text)
}

// warnOfOrder warns once if a lock that is waited for has a lesser key than one that the command
// above holds: there is no order then in which all wait.
func (w *waitingLine) warnOfOrder(key string) {
	if key != "" && key < w.above && !w.warned {
		w.warned = true
		w.voice.warnf("lock %q is waited for below %q: whoever takes both in the order of their keys can wait the other way round, and neither goes on", key, w.above)
	}
}

// askWithin bounds the wait for what etcd knows of a lock.
const askWithin = 2 * time.Second

// describe says who holds the lock that is waited for, since when, and where we stand, and returns
// its key, if etcd answers.
func (w *waitingLine) describe(ctx context.Context) (says, key string) {
	waiting, s := "waiting for "+w.keys.locks()+": ", ""
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	l, err := awaited(w.keys, func(key string) (line.Line, error) { return line.Read(ctx, w.client, key) })
	if err != nil {
		return waiting + "etcd does not answer at the moment", ""
	}
	key = l.Lock
	quoted := strconv.Quote(key)
	switch is := w.keys.form("", quoted+" is "); {
	case len(l.Holders) == 0:
		s += "the next in line is about to get " + w.keys.form("it", quoted)
	case l.Slots > 0:
		s += taken(l, w.keys.form("slots", "slots of "+quoted))
	case l.Shared:
		s += is + sharedBy(l)
	default:
		s += is + heldBy(l)
	}
	w.seen = s
	if since := w.heldSince(ctx, l); !since.IsZero() {
		at := " since " + since.Local().Format("15:04:05")
		w.seen += at
		if s += at; time.Since(since) >= 0 { // else the clock there is ahead
			s += fmt.Sprintf(" (%v)", time.Since(since).Round(time.Second))
		}
	}
	if p := l.WaitingPause(); p != nil {
		pause := fmt.Sprintf(", and a pause %v waits", p)
		w.seen += pause
		s += pause
	}
	if place, _ := l.Stand(os.Getpid()); place > 0 {
		s += fmt.Sprintf(", place %d in line", place)
		if l.More {
			s += " or later"
		}
		if w.mode == etcdlock.Shared {
			s += fmt.Sprintf(" (%v)", w.mode)
		}
	}
	return waiting + s, key
}

// heldSince returns since when the only holder has the lock, the zero time if that is not known.
// Who has not waited for it has it since it joined.
func (w *waitingLine) heldSince(ctx context.Context, l line.Line) time.Time {
	if len(l.Holders) != 1 || l.Shared || l.Slots > 0 {
		return time.Time{}
	}
	h := &l.Holders[0]
	if w.nonce != h.Nonce {
		w.since, w.nonce = time.Time{}, h.Nonce
	}
	if w.since.IsZero() && !w.noSince {
		err := line.AddSince(ctx, w.client, []line.Line{l})
		w.since, w.noSince = record.Said(h.Since), retry.IsDenied(err)
	}
	if w.since.IsZero() && h.Place != nil && h.Place.CreateRevision == h.Nonce {
		return record.Said(h.Record.Since)
	}
	return w.since
}

// sayLast returns the error of a wait, which names who had the lock, where the time is over, and
// says what is known since then.
func (w *waitingLine) sayLast(err error) error {
	late := tooLate(err)
	if late == nil {
		return err
	}
	if w.seen != "" {
		err = fmt.Errorf("%w (last seen: %s)", err, w.seen)
	}
	if late.unknown != nil {
		err = fmt.Errorf("%w, and then %v", err, late.unknown)
	}
	return err
}

// A namedError is an error of a try, and says who has the lock, or who have.
type namedError struct {
	says   string
	shared bool // by several
	err    *etcdlock.BusyError
}

func (e *namedError) Error() string { return e.says }
func (e *namedError) Unwrap() error { return e.err }

// sayWho returns the error of a try, which names who share the lock, or have its slots, where
// several do, and what stands in line where that is etcd's own lock, or a pause.
func (h *holder) sayWho(ctx context.Context, err error) error {
	var busy *etcdlock.BusyError
	if !errors.As(err, &busy) || busy.Holder != "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	l, failed := line.Read(ctx, h.client, busy.Key)
	says := ""
	switch {
	case failed != nil, len(l.Holders) == 0:
	case l.Holders[0].Mutex:
		says = fmt.Sprintf("lock %q is %s", busy.Key, heldBy(l))
	case l.WaitingPause() != nil:
		says = fmt.Sprintf("lock %q is not free: a pause %v waits for it", busy.Key, l.WaitingPause())
	case h.mode == etcdlock.Shared, len(l.Holders) < l.Slots:
	case l.Slots > 0:
		says = fmt.Sprintf("no slot of lock %q is free: %s", busy.Key, taken(l, ""))
	case l.Shared:
		says = fmt.Sprintf("lock %q is %s", busy.Key, sharedBy(l))
	}
	if says == "" {
		return err
	}
	return &namedError{says, l.Shared, busy}
}

// heldBy says who has a lock alone.
func heldBy(l line.Line) string {
	if p := l.Holders[0].Pause; p != nil {
		return fmt.Sprintf("paused %v", p)
	}
	return fmt.Sprintf("held by %q", l.Holders[0].ID)
}

// sharedBy says who share a lock.
func sharedBy(l line.Line) string { return fmt.Sprintf("shared by %d (%s)", len(l.Holders), ids(l)) }

// taken says who have the slots of a lock.
func taken(l line.Line, slots string) string {
	if slots != "" {
		slots += " "
	}
	return fmt.Sprintf("%d of %d %sare taken (%s)", len(l.Holders), l.Slots, slots, ids(l))
}

// ids names those who have a lock, but not all of many.
func ids(l line.Line) string {
	var all []string
	for _, holder := range l.Holders {
		all = append(all, holder.ID)
	}
	some, more := firstOf(all)
	return strings.Join(some, ", ") + more
}

// awaited reads the line for the first lock that this process has not got yet, or for the last one.
func awaited(all keys, read func(key string) (line.Line, error)) (l line.Line, err error) {
	for _, key := range all {
		if l, err = read(key); err != nil {
			break
		}
		if _, has := l.Stand(os.Getpid()); !has {
			break
		}
	}
	return l, err
}
