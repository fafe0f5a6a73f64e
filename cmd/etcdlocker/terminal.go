package main

import (
	"os/signal"
	"unicode"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"golang.org/x/text/width"
)

// A terminalState is how the terminal of our session was set before the command ran, nil if it
// has no terminal. It need not be stdin: that of a pager is a pipe.
type terminalState struct{ state *term.State }

func saveTerminal() (t terminalState) {
	withTerminal(func(tty int) { t.state, _ = term.GetState(tty) })
	return t
}

// restore undoes what a command that was ended could not undo itself. If it was a shell, the
// terminal may still listen to one of its jobs, which is dead: then it is ours again. If it listens
// to another process that lives, it is left as it is.
func (t terminalState) restore() {
	if t.state == nil {
		return
	}
	withTerminal(func(tty int) {
		foreground, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
		if err != nil {
			return
		}
		// It would stop us: we may be in the background until this is done.
		signal.Ignore(unix.SIGTTOU)
		if own := unix.Getpgrp(); foreground != own {
			if foreground == 0 || unix.Kill(-foreground, 0) != unix.ESRCH {
				return
			}
			unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, own)
		}
		term.Restore(tty, t.state)
	})
}

// inForeground reports whether we have a terminal, and our process group is the one that it listens
// to. The kernel names a group outside of our pid namespace 0. If it does so with both they are
// taken for the same: etcdlocker was started there by something like unshare, which waits for it.
func inForeground() (in bool) {
	withTerminal(func(tty int) {
		foreground, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
		in = err == nil && foreground == unix.Getpgrp()
	})
	return in
}

// fit returns as much of a line as fits into so many columns, with dots if that is not all.
func fit(line string, columns int) string {
	const dots = "..."
	used, end := 0, 0 // end is that of what fits before the dots
	for i, r := range line {
		if used <= columns-len(dots) {
			end = i
		}
		used += columnsOf(r)
	}
	if used <= columns {
		return line
	}
	return line[:end] + dots
}

// columnsOf returns how many columns of a terminal a character takes.
func columnsOf(r rune) int {
	kind := width.LookupRune(r).Kind()
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// withTerminal calls f with a descriptor of our session's terminal, if it has one.
func withTerminal(f func(tty int)) {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer unix.Close(tty)
	f(tty)
}
