package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/term"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// A waitingLine tells who holds the lock that is waited for: one line that is kept up to date while
// this process has a terminal, else one plain line for each lock that is waited for.
type waitingLine struct {
	voice    *voice
	client   *clientv3.Client
	keys     keys
	waits    <-chan struct{} // receives when a lock is waited for, maybe another one than before
	terminal *os.File        // nil: none, or one on which nothing can be erased

	told string // the key that the last plain line was about
}

func (h *holder) newWaitingLine(stderr *os.File) *waitingLine {
	w := &waitingLine{voice: h.voice, client: h.client, keys: h.keys, waits: h.waits}
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
	line, key := w.describe(ctx)
	known := key != ""
	silent = silent || w.told != ""
	if ctx.Err() == nil && (known && key != w.told || !known && !silent) {
		w.voice.notef("%s", line)
		w.told = key
	}
	return known
}

// show brings the line on the terminal up to date.
func (w *waitingLine) show(ctx context.Context) {
	line, _ := w.describe(ctx)
	if ctx.Err() != nil {
		return
	}
	line = "etcdlocker: " + line
	if columns, _, err := term.GetSize(int(w.terminal.Fd())); err == nil && columns > 4 {
		line = fit(line, columns-1)
	}
	w.voice.setStatus(line)
}

// describe says who holds the lock that is waited for, since when, and where we stand, and returns
// its key, if etcd answers.
func (w *waitingLine) describe(ctx context.Context) (says, key string) {
	s := "waiting for " + w.keys.locks() + ": "
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var line wire.Line
	for _, key = range w.keys { // the first one that is not ours yet
		var err error
		if line, err = wire.ReadLine(ctx, w.client, key); err != nil {
			return s + "etcd does not answer at the moment", ""
		}
		if !isOurs(line) {
			break
		}
	}
	quoted := strconv.Quote(key)
	if line.Held {
		s += w.keys.form("", quoted+" is ") + fmt.Sprintf("held by %q", line.Holder)
	} else {
		s += "the next in line is about to get " + w.keys.form("it", quoted)
	}
	if since := line.Record.Since; !since.IsZero() {
		s += fmt.Sprintf(" since %s (%v)", since.Local().Format("15:04:05"), time.Since(since).Round(time.Second))
	}
	if ahead := line.Ahead(os.Getpid()); ahead >= 0 {
		s += fmt.Sprintf(", place %d in line", ahead)
		if line.More {
			s += " or later"
		}
	}
	return s, key
}

// isOurs reports whether this process holds the lock of a line.
func isOurs(line wire.Line) bool {
	return line.Held && line.Ahead(os.Getpid()) == 0 && line.Record.PID == os.Getpid()
}
