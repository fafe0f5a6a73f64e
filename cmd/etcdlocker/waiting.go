package main

import (
	"context"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/term"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// A waitingLine tells who holds the lock that is waited for: one line that is kept up to date while
// this process has a terminal, else one plain line.
type waitingLine struct {
	voice    *voice
	client   *clientv3.Client
	key      string
	terminal *os.File // nil: none, or one on which nothing can be erased
}

func newWaitingLine(v *voice, client *clientv3.Client, key string, stderr *os.File) *waitingLine {
	w := &waitingLine{voice: v, client: client, key: key}
	if kind := os.Getenv("TERM"); kind != "" && kind != "dumb" && term.IsTerminal(int(stderr.Fd())) {
		w.terminal = stderr
	}
	return w
}

// run tells until ctx is done.
func (w *waitingLine) run(ctx context.Context) {
	defer w.voice.setStatus("")
	tick := time.NewTicker(time.Second)
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
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// say says it once. That etcd does not answer is said for the time being, unless it was, and say
// returns false.
func (w *waitingLine) say(ctx context.Context, silent bool) bool {
	line, known := w.describe(ctx)
	if ctx.Err() == nil && (known || !silent) {
		w.voice.notef("%s", line)
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

// describe says who holds the lock, since when, and where we stand, if etcd answers.
func (w *waitingLine) describe(ctx context.Context) (says string, known bool) {
	s := fmt.Sprintf("waiting for lock %q", w.key)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	line, err := wire.ReadLine(ctx, w.client, w.key)
	if err != nil {
		return s + ": etcd does not answer at the moment", false
	}
	if line.Held {
		s += fmt.Sprintf(": held by %q", line.Holder)
	} else {
		s += ": the next in line is about to get it"
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
	return s, true
}
