package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/grpclog"

	"github.com/etcdlock/etcdlock/internal/plain"
)

// maxQueued is how many lines wait for stderr at most.
const maxQueued = 1000

// flushWithin is how long a blocked stderr is waited for, before something else is written and at
// the end. One that takes what is written is waited for longer: then it is a processor that the
// goroutine that writes does not get.
const (
	flushWithin     = 100 * time.Millisecond
	flushOpenWithin = 5 * time.Second
)

// A voice says everything that is said to a human, one line at a time, on stderr: stdout is the
// command's. While a status line stands on the terminal, other lines are written above it.
//
// No method but flush waits for stderr, which may block for as long as it likes: a terminal after
// Ctrl-S, or a full pipe. A goroutine writes, and lasts for as long as there is something to write.
type voice struct {
	w     io.Writer
	front func() bool // whether a status line may stand on the terminal; nil: it may
	takes func() bool // whether w takes a line, without waiting; nil: that is not known

	mu      sync.Mutex
	dated   bool          // each line says when it was said
	queue   []string      // lines to be written
	dropped int           // lines that came when the queue was full
	status  string        // the status line that is wanted; empty: none
	quiet   chan struct{} // closed when all is written; nil: it is

	// The writing goroutine's.
	shown string // the status line on the terminal
	seen  string // the last one that was wanted, shown or not
}

func (v *voice) say(kind, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.queue) < maxQueued {
		v.put(kind, format, args...)
	} else {
		v.dropped++
	}
	v.beginLocked()
}

// sayAtLast says what belongs to the exit code, and so comes in the end. It finds room in the
// queue, behind the number of lines that did not.
func (v *voice) sayAtLast(kind, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.putDropped()
	v.put(kind, format, args...)
	v.beginLocked()
}

func (v *voice) put(kind, format string, args ...any) {
	if v.dated {
		kind = time.Now().UTC().Format("2006-01-02T15:04:05.000Z ") + kind
	}
	v.queue = append(v.queue, "etcdlocker: "+kind+plain.Line(plain.Reason(fmt.Sprintf(format, args...)))+"\n")
}

// putDropped queues the number of lines that found no room.
func (v *voice) putDropped() {
	if v.dropped > 0 {
		v.put("warning: ", "%d messages are missing here: stderr was blocked", v.dropped)
		v.dropped = 0
	}
}

func (v *voice) errorf(format string, args ...any) { v.sayAtLast("error: ", format, args...) }
func (v *voice) hintf(format string, args ...any)  { v.sayAtLast("hint: ", format, args...) }
func (v *voice) warnf(format string, args ...any)  { v.say("warning: ", format, args...) }
func (v *voice) notef(format string, args ...any)  { v.say("", format, args...) }

// date has each line say when it was said.
func (v *voice) date() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dated = true
}

// setStatus replaces the status line of a terminal; empty takes it away.
func (v *voice) setStatus(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.status = line
	v.beginLocked()
}

// beginLocked has written what there is to write. It is called with mu locked.
func (v *voice) beginLocked() {
	if v.quiet == nil {
		v.quiet = make(chan struct{})
		go notStopped(v.write)
	}
}

// Write says what another logger has written, line by line.
func (v *voice) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		v.notef("%s", withoutUsers(strings.TrimSuffix(line, "\n")))
	}
	return len(p), nil
}

// withoutUsers returns text without the users and passwords in its URLs. gRPC logs that of a proxy.
func withoutUsers(text string) string {
	const sign = "://"
	before, after, ok := strings.Cut(text, sign)
	if !ok {
		return text
	}
	authority := after
	if end := strings.IndexAny(after, "/?# \t\""); end >= 0 {
		authority = after[:end]
	}
	return before + sign + withoutUsers(after[strings.LastIndex(authority, "@")+1:])
}

// speakForRPC has gRPC log by way of v, as its variables ask for. By itself it writes to stderr,
// and waits for that, in goroutines on which the lock hangs.
func speakForRPC(v *voice) {
	info, warning, failure := io.Discard, io.Discard, io.Discard
	// What is worse goes there as well.
	switch strings.ToLower(os.Getenv("GRPC_GO_LOG_SEVERITY_LEVEL")) {
	case "info":
		info = v
	case "warning":
		warning = v
	default:
		failure = v
	}
	verbosity, _ := strconv.Atoi(os.Getenv("GRPC_GO_LOG_VERBOSITY_LEVEL"))
	grpclog.SetLoggerV2(grpclog.NewLoggerV2WithVerbosity(info, warning, failure, verbosity))
}

// takeFailedWrites takes the signals that would end this process, and so the command, where the
// reader of stderr has gone away, or a file has become as large as it may (ulimit -f). They are not
// ignored, unless that was asked for: the command would inherit that.
var takeFailedWrites = sync.OnceFunc(func() {
	c := make(chan os.Signal, 1)
	catch(c, syscall.SIGPIPE)
	catch(c, syscall.SIGXFSZ)
})

// write writes until nothing is left to be written.
func (v *voice) write() {
	takeFailedWrites()
	for {
		v.mu.Lock()
		v.putDropped()
		lines, status := v.queue, v.status
		v.queue = nil
		if len(lines) == 0 && status == v.seen {
			close(v.quiet)
			v.quiet = nil
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		v.seen = status
		if v.shown+status != "" && v.front != nil && !v.front() {
			v.shown, status = "", "" // a shell's prompt may stand there now
		}
		for _, line := range lines {
			io.WriteString(v.w, v.erase()+line+v.shown)
		}
		if status != v.shown {
			io.WriteString(v.w, v.erase()+status)
			v.shown = status
		}
	}
}

func (v *voice) erase() string {
	if v.shown == "" {
		return ""
	}
	return "\r\x1b[K"
}

// flush waits until all is written, but not for long.
func (v *voice) flush() { v.flushWithin(flushWithin) }

func (v *voice) flushWithin(limit time.Duration) {
	v.mu.Lock()
	quiet := v.quiet
	v.mu.Unlock()
	if quiet == nil {
		return
	}
	for begun := time.Now(); ; {
		select {
		case <-quiet:
			return
		case <-time.After(limit):
			if v.takes == nil || !v.takes() || time.Since(begun) > flushOpenWithin {
				return
			}
		}
	}
}

// stderrTakes reports whether stderr takes a line without having its writer wait.
func stderrTakes() bool {
	fds := []unix.PollFd{{Fd: 2, Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLOUT != 0
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
		fmt.Fprintf(&line, " %s=%s", a.Key, plain.Word(plain.Reason(a.Value.String())))
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
