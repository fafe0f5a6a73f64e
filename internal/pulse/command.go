//go:build unix

package pulse

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// Command are the ends of a second command that looks after the first one.
type Command struct {
	teller
	run   func(output int) supervise.Result
	log   *slog.Logger
	began atomic.Pointer[time.Time] // when the run began that has not ended; nil: all have
	signs atomic.Int64
	last  atomic.Pointer[string] // how the last run ended; nil: none has
	runs  sync.WaitGroup
}

// NewCommand returns the ends of what run runs, each time with its output in a descriptor.
func NewCommand(run func(output int) supervise.Result, log *slog.Logger) *Command {
	return &Command{teller: newTeller(), run: run, log: log}
}

// Given returns nothing: the command itself need not know.
func (c *Command) Given() (env []string, channel int) { return nil, 0 }

// Begin does nothing: it is run when it is asked.
func (c *Command) Begin() {}

// Ask runs it.
func (c *Command) Ask() {
	if now := time.Now(); c.began.CompareAndSwap(nil, &now) {
		c.runs.Go(c.once)
	}
}

// Silence says that it has not ended, or never well.
func (c *Command) Silence(limit time.Duration) supervise.Trouble {
	if last := c.last.Load(); last != nil && c.signs.Load() == 0 {
		// A run that has just begun is not silent.
		began := c.began.Load()
		return supervise.Trouble{Silent: began != nil && time.Since(*began) >= limit, Why: problem("-v shows each run; if the command only is slow to start, a longer --ttl",
			"the pulse command did not succeed within %v of the start; at last it %s", limit, *last)}
	}
	return supervise.Trouble{Silent: true, Why: problem("a timeout of its own below the TTL would make it say why", "the pulse command did not end within %v", limit)}
}

// Close waits for a run to end, which must have been seen to.
func (c *Command) Close() {
	close(c.quit)
	c.runs.Wait()
}

// once runs it once.
func (c *Command) once() {
	output, theirs, err := newOutput()
	if err != nil {
		c.ended(supervise.Result{Err: err}, "")
		return
	}
	defer output.close()
	result := c.run(theirs)
	syscall.Close(theirs)
	c.ended(result, output.tail())
}

// ended tells how it ended, and the last that it said.
func (c *Command) ended(r supervise.Result, said string) {
	c.began.Store(nil)
	how := how(r)
	if said != "" {
		how += ": " + said
	}
	c.log.Debug("pulse command", "ended", how)
	var news News
	if r.Err != nil || r.Status != 0 {
		c.last.Store(&how)
		// Before the first success it may be that what it looks after is not ready.
		hint := "see why the command is not well; a check that may fail now and then has to try again by itself"
		if r.Err != nil {
			hint = "it needs /bin/sh, and the process that runs it must be left alone"
		}
		news = News{Trouble: problem(hint, "the pulse command %s", how), NotYet: c.signs.Load() == 0, Parting: true}
	} else {
		c.signs.Add(1)
	}
	c.tell(news)
}

// how says how it ended.
func how(r supervise.Result) string {
	switch {
	case r.Err != nil:
		return fmt.Sprintf("could not be run: %v", r.Err)
	case r.Status.Signaled():
		return fmt.Sprintf("died of signal %d", r.Status.Signal())
	}
	return fmt.Sprintf("ended with exit code %d", r.Status.ExitStatus())
}

// output is what a run says: the last of it is kept, to be shown.
type output struct {
	pipe *os.File
	kept []byte
	done chan struct{}
}

// maxKept is how much of the output is kept, in bytes.
const maxKept = 4096

// newOutput returns a pipe to read and the descriptor to write to it.
func newOutput() (o *output, theirs int, err error) {
	pipe, theirs, err := newPair("a pipe for its output", func() (fds [2]int, err error) {
		err = syscall.Pipe(fds[:])
		return fds, err
	})
	if err != nil {
		return nil, -1, err
	}
	o = &output{pipe: pipe, done: make(chan struct{})}
	go o.read()
	return o, theirs, nil
}

func (o *output) read() {
	defer close(o.done)
	buf := make([]byte, maxKept)
	for {
		n, err := o.pipe.Read(buf)
		o.kept = append(o.kept, buf[:n]...)
		o.kept = o.kept[max(0, len(o.kept)-maxKept):]
		if err != nil {
			return
		}
	}
}

// lingering is for how long the output of a run that has ended is read, if something that it has
// left holds it open.
const lingering = 100 * time.Millisecond

// tail returns the last line of what was said.
func (o *output) tail() string {
	o.pipe.SetReadDeadline(time.Now().Add(lingering))
	<-o.done
	text := bytes.TrimSpace(o.kept)
	return shortened(text[bytes.LastIndexByte(text, '\n')+1:])
}

func (o *output) close() {
	o.pipe.Close()
	<-o.done
}
