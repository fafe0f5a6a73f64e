package main

import (
	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/guard"
)

// A command is prepared while the lock is being acquired.
type command struct {
	ready chan struct{} // closed when the rest is set
	run   guard.Command
	err   error
}

// prepare begins to prepare the command at path; there is none if that is empty.
func prepare(path string, args []string, unguarded bool) *command {
	c := &command{ready: make(chan struct{})}
	if path == "" || unguarded {
		if path != "" {
			c.run = guard.Unguarded(path, args)
		}
		close(c.ready)
		return c
	}
	go func() {
		defer close(c.ready)
		c.run, c.err = guard.New(path, args)
	}()
	return c
}

// await returns the command once it is prepared, nil if there is none.
func (c *command) await() (guard.Command, error) {
	<-c.ready
	return c.run, c.err
}

// extend says until when the lock is valid now.
func (c *command) extend(validUntil boottime.Instant) {
	if run, _ := c.await(); run != nil {
		run.Extend(validUntil)
	}
}

// close ends what was prepared. A command that still runs is not touched.
func (c *command) close() {
	if run, _ := c.await(); run != nil {
		run.Close()
	}
}
