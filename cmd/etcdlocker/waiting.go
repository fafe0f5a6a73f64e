package main

import (
	"context"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/term"

	"github.com/etcdlock/etcdlock/internal/place"
)

// A waitingLine tells who holds the lock that is waited for: on a terminal one line that is kept up to date, else
// one plain line at the start.
type waitingLine struct {
	voice    *voice
	client   *clientv3.Client
	key      string
	terminal *os.File // nil: none
}

func newWaitingLine(v *voice, client *clientv3.Client, key string, stderr *os.File) *waitingLine {
	w := &waitingLine{voice: v, client: client, key: key}
	if term.IsTerminal(int(stderr.Fd())) {
		w.terminal = stderr
	}
	return w
}

// run tells until ctx is done.
func (w *waitingLine) run(ctx context.Context) {
	if w.terminal == nil {
		w.voice.notef("%s", w.describe(ctx))
		return
	}
	defer w.voice.setStatus("")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		line := "etcdlocker: " + w.describe(ctx)
		if ctx.Err() != nil {
			return
		}
		if width, _, err := term.GetSize(int(w.terminal.Fd())); err == nil && width > 4 && len([]rune(line)) >= width {
			line = string([]rune(line)[:width-4]) + "..."
		}
		w.voice.setStatus(line)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// describe says who holds the lock, since when, and where we stand.
func (w *waitingLine) describe(ctx context.Context) string {
	s := fmt.Sprintf("waiting for lock %q", w.key)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	line, err := place.Read(ctx, w.client, w.key)
	if err != nil {
		return s + ": etcd does not answer at the moment"
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
	return s
}
