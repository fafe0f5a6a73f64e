package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/plain"
)

// watched are the kinds of events that are printed to stdout.
var watched = []admin.EventKind{admin.EventJoined, admin.EventLeft, admin.EventAcquired, admin.EventPassed, admin.EventReleased,
	admin.EventLost, admin.EventBroken, admin.EventPaused, admin.EventResumed, admin.EventBegan, admin.EventMissed}

// errEnough says that nobody wants to see more.
var errEnough = errors.New("nobody wants to see more")

// watch is what the command's flags say.
type watch struct {
	connection
	output string
	events []string
	count  int
}

func newWatch() *cobra.Command {
	w := &watch{}
	cmd := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "show what happens to locks, one event a line",
		Long: `Shows what happens to the locks whose keys begin with PREFIX, to all without it,
until it is interrupted. Each event is a line, in etcd's order: a holding of a
millisecond shows both its events. The events are joined, left, acquired,
passed, released, lost, broken, paused, resumed; the first line is began. If
etcd cannot be reached for some time that is said on stderr, and what has
happened meanwhile is shown later. If etcd has compacted that, a line says
missed.`,
		Example: `  etcdlockctl watch /jobs/
  etcdlockctl watch /jobs/nightly --event released,lost --count 1
  etcdlockctl watch -o json | jq -r 'select(.event == "lost") | .key'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("watch takes one prefix at most, and got %d (%w)", len(args), errUsage)
			}
			return w.run(cmd.Context(), strings.Join(args, ""))
		},
	}
	w.addFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVarP(&w.output, "output", "o", "", "text or json (default: text on a terminal, else json)")
	f.StringSliceVar(&w.events, "event", nil, "only these, as in released,lost")
	f.IntVar(&w.count, "count", 0, "end after so many lines")
	return cmd
}

func (w *watch) check() error {
	if w.output == "" {
		w.output = "json"
		if term.IsTerminal(int(os.Stdout.Fd())) {
			w.output = "text"
		}
	}
	switch {
	case w.output != "text" && w.output != "json":
		return fmt.Errorf("-o: %q is neither text nor json (%w)", w.output, errUsage)
	case w.count < 0:
		return fmt.Errorf("--count: %d is negative (%w)", w.count, errUsage)
	}
	for i, name := range w.events {
		name = strings.TrimSpace(name)
		w.events[i] = name
		if !slices.Contains(watched, admin.EventKind(name)) {
			return fmt.Errorf("--event: %q is not an event (%w)", name, errUsage)
		}
	}
	return nil
}

// run shows events until it is interrupted, or whoever reads them has gone.
func (w *watch) run(ctx context.Context, prefix string) error {
	if err := w.check(); err != nil {
		return err
	}
	client, err := w.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go awaitGone(os.Stdout, cancel)
	// Later than at the beginning etcd is waited for.
	late := time.AfterFunc(w.timeout, func() { cancel(w.late(w.timeout)) })
	defer late.Stop()
	shown := 0
	for e, err := range admin.Watch(ctx, client, prefix) {
		switch {
		case errors.Is(err, errEnough):
			return nil
		case err != nil:
			return w.explain(ctx, err)
		}
		late.Stop()
		if !w.shows(e) {
			continue
		}
		if err := w.print(e); errors.Is(err, syscall.EPIPE) {
			return nil
		} else if err != nil {
			return err
		}
		if shown++; shown == w.count {
			return nil
		}
	}
	return nil
}

// awaitGone cancels when nobody reads what is written to a file any more. A pipe tells its writer,
// who might have nothing to write for hours.
func awaitGone(f *os.File, cancel context.CancelCauseFunc) {
	for {
		poll := []unix.PollFd{{Fd: int32(f.Fd())}}
		if n, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return
		} else if n > 0 {
			cancel(errEnough)
			return
		}
	}
}

// shows reports whether an event is to be printed to stdout. What is of the connection goes to
// stderr.
func (w *watch) shows(e admin.Event) bool {
	switch e.Kind {
	case admin.EventAway:
		sayAway(e.Reason, "what happens meanwhile is shown when it does again")
		return false
	case admin.EventBack:
		sayBack()
		return false
	}
	return len(w.events) == 0 || slices.Contains(w.events, string(e.Kind))
}

func (w *watch) print(e admin.Event) error {
	if w.output == "json" {
		return writeJSON(os.Stdout, e, "")
	}
	_, err := fmt.Println(eventText(e))
	return err
}

// eventText says in one line what has happened.
func eventText(e admin.Event) string {
	text := e.Time.Local().Format("2006-01-02 15:04:05.000") + "  " + fmt.Sprintf("%-8s", e.Kind) + "  "
	switch e.Kind {
	case admin.EventBegan:
		return text + fmt.Sprintf("after revision %d", e.Revision)
	case admin.EventMissed:
		return text + fmt.Sprintf("events between the revisions %d and %d; what is different now follows", e.Since, e.Revision)
	}
	text += plain.Word(e.Key)
	if e.Waiter != nil {
		text += "  " + contenderText(*e.Waiter, e.Time)
	}
	if e.Holder != nil {
		text += "  " + holderText(*e.Holder, e.Time)
	}
	if e.From != nil {
		text += ", from " + plain.Word(e.From.ID)
	}
	if e.Mode == "shared" {
		text += ", shared"
	}
	if e.Place > 0 {
		text += fmt.Sprintf(", place %d", e.Place)
	}
	if e.Unsure {
		text += ", or its lease has ended"
	}
	if e.Resync {
		text += ", some time before"
	}
	return text
}
