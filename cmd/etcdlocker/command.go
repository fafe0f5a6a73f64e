package main

import (
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/guard"
)

// A command is prepared while the lock is being acquired.
type command struct {
	path        string // empty: no command is run
	interpreter string // of the first of words, empty: none
	words       []string

	mu       sync.Mutex
	launched *guard.Launched // nil: nobody looks after it
	run      guard.Command   // nil: not ready
	closed   bool

	measures // of what it would take to end it
}

// prepare begins to prepare the command at path.
func (l *locker) prepare(path string) *command {
	c := &command{path: path, interpreter: l.pulse.interpreter(), words: l.command}
	if path != "" && !l.unguarded {
		c.launched, l.launched = l.launched, nil
		if c.launched == nil {
			c.launched = c.launch()
		}
		go c.await() // from then on children are reaped, as the first process of a container must
	}
	return c
}

// launch starts a guard for the command, with etcdlocker's own words.
func (c *command) launch() *guard.Launched {
	return guard.Launch(withoutPasswords(os.Args, len(os.Args)-len(c.words)))
}

// await returns the command once it is prepared, nil where no command is to run or it was closed.
func (c *command) await() (_ guard.Command, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, nil
	case c.path == "", c.run != nil:
	case c.launched == nil:
		c.run = guard.Unguarded(c.path, c.interpreter, c.words)
	default:
		c.run, err = c.launched.Command(c.path, c.interpreter, len(os.Args)-len(c.words))
	}
	c.of(c.run)
	return c.run, err
}

// again prepares it again after its guard was killed or stopped.
func (c *command) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
	c.run = nil
	if c.launched != nil {
		c.launched = c.launch()
	}
}

// extend says until when the lock is valid now, and what that allows for beyond the usual margin.
func (c *command) extend(validUntil boottime.Instant, allowed time.Duration) {
	if run, _ := c.await(); run != nil {
		run.Extend(validUntil, allowed)
	}
}

// close ends what was prepared. A command that still runs is not touched. Renewals do not wait for
// it.
func (c *command) close() {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if !closed {
		c.end()
	}
}

func (c *command) end() {
	if c.run != nil {
		c.run.Close()
	}
	c.launched.Close()
}

// withoutPasswords returns words of which the first ones are options, without the passwords in
// these: the process list shows them for each process that repeats them.
func withoutPasswords(words []string, options int) []string {
	const hidden = "..."
	words = slices.Clone(words)
	for i := range options {
		name, value, inline := strings.Cut(words[i], "=")
		at := i
		if !inline {
			if at++; at >= options {
				break
			}
			value = words[at]
		}
		switch user, _, has := strings.Cut(value, ":"); {
		case name == "--password":
			value = hidden
		case name == "--user" && has:
			value = user + ":" + hidden
		default:
			continue
		}
		if inline {
			value = name + "=" + value
		}
		words[at] = value
	}
	return words
}
