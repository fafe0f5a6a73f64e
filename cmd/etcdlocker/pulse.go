package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/pulse"
	"github.com/etcdlock/etcdlock/internal/rundir"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// pulseOptions say how the command shows that it is alive and well: in one of these ways, or not at
// all.
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

// isModule reports whether node may find a module by a name: one of its file, with or without an
// extension, or of its directory. Options and what loads modules from elsewhere are left to node.
func isModule(program, name string) bool {
	if filepath.Base(program) != "node" || strings.HasPrefix(name, "-") || os.Getenv("NODE_OPTIONS") != "" {
		return true
	}
	for _, extension := range []string{"", ".js", ".json", ".node"} {
		if _, err := os.Stat(name + extension); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return true
		}
	}
	return false
}

// A pulsing command is watched over. Without one of pulseOptions there is nothing to watch, and
// nothing is done.
type pulsing struct {
	guard.Command
	source  pulse.Source  // nil: none
	checks  *guard.Checks // of a pulse command
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
		p.checks, err = guard.NewChecks()
		p.source = pulse.NewCommand(func(output int) supervise.Result {
			return p.checks.Run(p.PID(), h.pulse.pulseCmd, output)
		}, log)
	}
	return p, err
}

// prepare adds to an order what the command needs for that.
func (p *pulsing) prepare(o *guard.Order) {
	switch {
	case p.checks != nil:
		o.Channel, o.Checks = p.checks.Channel(), true
	case p.source != nil:
		env, channel := p.source.Given()
		o.Env, o.Channel = append(o.Env, env...), channel
	}
}

// begin watches over the command, which has started.
func (p *pulsing) begin(run guard.Command) {
	p.Command = run
	if p.checks != nil {
		p.checks.Begin()
	}
	if p.source != nil {
		p.source.Begin()
		p.monitor = pulse.Watch(p.source, p.limits)
	}
}

// Freeze stops the command. Meanwhile nobody expects signs of it.
func (p *pulsing) Freeze() {
	p.Command.Freeze()
	p.monitor.Paused(true)
}

// Thaw lets it go on.
func (p *pulsing) Thaw() {
	p.Command.Thaw()
	p.monitor.Paused(false)
}

// close ends the watch.
func (p *pulsing) close() {
	p.monitor.Close()
	if p.checks != nil {
		p.checks.Close()
	}
	if p.source != nil {
		p.source.Close()
	}
}
