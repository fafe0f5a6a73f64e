package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
)

// A voice says everything that is said to a human, one line at a time, on stderr: stdout is the command's. While a
// status line stands on the terminal, other lines are written above it.
type voice struct {
	mu     sync.Mutex
	w      io.Writer
	status string
}

func (v *voice) say(kind, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	line := oneLine(fmt.Sprintf(format, args...))
	fmt.Fprintf(v.w, "%setcdlocker: %s%s\n%s", v.erase(), kind, line, v.status)
}

func (v *voice) errorf(format string, args ...any) { v.say("error: ", format, args...) }
func (v *voice) hintf(format string, args ...any)  { v.say("hint: ", format, args...) }
func (v *voice) warnf(format string, args ...any)  { v.say("warning: ", format, args...) }
func (v *voice) notef(format string, args ...any)  { v.say("", format, args...) }

// setStatus replaces the status line of a terminal; empty takes it away.
func (v *voice) setStatus(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if line == v.status {
		return
	}
	fmt.Fprint(v.w, v.erase()+line)
	v.status = line
}

func (v *voice) erase() string {
	if v.status == "" {
		return ""
	}
	return "\r\x1b[K"
}

// oneLine keeps a message on its line, whatever is quoted in it, and control characters off the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
}

// readable returns a key or an id as it is if it is plain, else quoted.
func readable(s string) string {
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` || s == "" || strings.ContainsRune(s, ' ') {
		return quoted
	}
	return s
}

// logger returns a logger that speaks with this voice.
func (v *voice) logger(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(&logHandler{voice: v, level: level})
}

type logHandler struct {
	voice *voice
	level slog.Level
	attrs []slog.Attr
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(r.Message)
	write := func(a slog.Attr) bool {
		fmt.Fprintf(&line, " %s=%s", a.Key, readable(a.Value.String()))
		return true
	}
	for _, a := range h.attrs {
		write(a)
	}
	r.Attrs(write)
	kind := "debug: "
	if r.Level >= slog.LevelWarn {
		kind = "warning: "
	}
	h.voice.say(kind, "%s", line.String())
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &with
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
