package main

import (
	"time"

	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/pulse"
	"github.com/etcdlock/etcdlock/internal/rundir"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// pulseOptions say how the command shows that it is alive and well: in one of these ways, or not at all.
type pulseOptions struct {
	node     bool   // the command is a Node.js module, and answers pings
	nodePath string // of node; empty: the one in PATH
	watchdog time.Duration
	pulseCmd string
}

// interpreter is the word that goes before the command; empty: none.
func (o *pulseOptions) interpreter() string {
	if o.node {
		return "node"
	}
	return ""
}

// hint says what a command has to do in order to be well.
func (o *pulseOptions) hint() string {
	switch {
	case o.node:
		return "a module answers each {ping: n} with {pong: n} within the TTL, which needs an open channel and an event loop that is not blocked; docs/node.md has examples"
	case o.watchdog > 0:
		return "the command has to send READY=1 or WATCHDOG=1 to its NOTIFY_SOCKET within the TTL, and then WATCHDOG=1 within each --watchdog; allow it more, or see why it hung"
	}
	return "the command is not well, or the pulse command does not suit it: run that one by hand"
}

// A pulsing command is watched over. Without one of pulseOptions there is nothing to watch, and nothing is done.
type pulsing struct {
	guard.Command
	source  pulse.Source // nil: none
	limits  pulse.Limits
	monitor *pulse.Monitor
}

// newPulsing returns one that is not started yet.
func (h *holder) newPulsing() (p *pulsing, err error) {
	p = &pulsing{limits: pulse.Limits{First: h.ttl, Next: h.ttl, Interval: h.refresh}}
	log := h.voice.logger(h.verbose)
	switch {
	case h.pulse.node:
		p.source, err = pulse.NewNode(log)
	case h.pulse.watchdog > 0:
		p.limits.Next, p.limits.Interval = h.pulse.watchdog, 0
		dir, _ := rundir.Dir() // without one there is another way
		p.source, err = pulse.NewNotify(dir, p.limits, log)
	case h.pulse.pulseCmd != "":
		p.source = pulse.NewCommand(func(output int) <-chan supervise.Result {
			return p.Command.Beside(h.pulse.pulseCmd, output)
		}, log)
	}
	return p, err
}

// given is what the command needs for that.
func (p *pulsing) given() (env []string, channel int) {
	if p.source == nil {
		return nil, -1
	}
	return p.source.Given()
}

// begin watches over the command, which has started.
func (p *pulsing) begin(run guard.Command) {
	p.Command = run
	if p.source != nil {
		p.source.Begin()
		p.monitor = pulse.Watch(p.source, p.limits)
	}
}

// Freeze stops the command. Meanwhile nobody expects signs of it.
func (p *pulsing) Freeze() {
	p.monitor.Still(true)
	p.Command.Freeze()
}

// Thaw lets it go on.
func (p *pulsing) Thaw() {
	p.Command.Thaw()
	p.monitor.Still(false)
}

// close ends the watch.
func (p *pulsing) close() {
	p.monitor.Close()
	if p.source != nil {
		p.source.Close()
	}
}
