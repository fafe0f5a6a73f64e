//go:build unix

package pulse

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// Notify are the datagrams that a program sends to systemd's watchdog, or to whoever else gives it
// a NOTIFY_SOCKET.
type Notify struct {
	teller
	socket   *notifySocket
	log      *slog.Logger
	every    time.Duration // between two signs, at most
	start    time.Duration // to the first one, at most
	signs    atomic.Int64
	others   atomic.Int64 // notifications of other users, which were ignored
	idle     atomic.Int64 // notifications that were no signs
	status   string       // the last one; this and the next are the reader's
	stopping bool         // the command has said so
	reader   sync.WaitGroup
}

// NewNotify returns a socket in a directory that is this user's alone, or where that cannot be in
// the abstract namespace. The limits are those that its signs are watched with.
func NewNotify(dir string, limits Limits, log *slog.Logger) (*Notify, error) {
	socket, err := newNotifySocket(dir)
	if err != nil {
		return nil, err
	}
	return &Notify{
		teller: newTeller(),
		socket: socket,
		log:    log,
		every:  limits.Next,
		start:  limits.First,
	}, nil
}

// Given returns where signs are expected, and how often.
func (n *Notify) Given() (env []string, channel int) {
	return []string{"NOTIFY_SOCKET=" + n.socket.name, fmt.Sprintf("WATCHDOG_USEC=%d", n.every.Microseconds())}, 0
}

// Begin listens.
func (n *Notify) Begin() { n.reader.Go(n.read) }

// Ask does nothing: signs come unasked.
func (n *Notify) Ask() {}

// Silence says so.
func (n *Notify) Silence(limit time.Duration) supervise.Trouble {
	what, hint := "did not send WATCHDOG=1 for %v", "it hung, or --watchdog is too short for it"
	if n.signs.Load() == 0 {
		what = "sent neither READY=1 nor WATCHDOG=1 within %v"
		hint = "they go to the socket that NOTIFY_SOCKET names, from a process of etcdlocker's own user; if it only is slow to start, a longer --ttl"
	}
	if others := n.others.Load(); others > 0 {
		what += fmt.Sprintf(" (notifications of other users: %d, ignored)", others)
		hint = "start etcdlocker as the user that the command changes to"
	} else if idle := n.idle.Load(); idle > 0 && n.signs.Load() == 0 {
		what += fmt.Sprintf(" (other notifications: %d)", idle)
		hint = "-v shows what it sends"
	}
	return supervise.Trouble{Silent: true, Why: problem(hint, "the command "+what, limit)}
}

// Close closes the socket and leaves nothing of it.
func (n *Notify) Close() {
	close(n.quit)
	n.socket.close()
	n.reader.Wait()
}

// read hears what is sent, until the socket is closed.
func (n *Notify) read() {
	buf := make([]byte, maxDatagram)
	for {
		datagram, ours, err := n.socket.receive(buf)
		switch {
		case errors.Is(err, errTooLong):
			n.log.Debug("notification ignored: it is too long", "limit", maxDatagram)
		case err != nil:
			return
		case !ours:
			n.others.Add(1)
			n.log.Debug("notification of another user ignored")
		default:
			n.log.Debug("notification", "text", shortened(datagram))
			n.take(parseNotification(datagram))
		}
	}
}

// take takes one notification.
func (n *Notify) take(said notification) {
	if said.status != nil {
		n.status = shortened(said.status)
	}
	var news News
	switch {
	case said.trigger:
		status := ""
		if n.status != "" {
			status = ": " + n.status
		}
		news.Trouble = problem("the reason is the command's: see its log", "the command said that it is not well (WATCHDOG=trigger)%s", status)
	case said.stopping && !n.stopping:
		n.stopping = true
		news.Within = max(n.start, n.every)
	case said.watchdog, said.ready && n.signs.Load() == 0:
	default:
		n.idle.Add(1)
		return
	}
	n.signs.Add(1)
	n.tell(news)
}

// maxDatagram is how long a datagram may be, in bytes. systemd takes as much.
const maxDatagram = 4096

var errTooLong = errors.New("a datagram that is too long")

// A notification is what a datagram says, as far as it matters here.
type notification struct {
	ready, watchdog, trigger, stopping bool
	status                             []byte // nil: it does not say
}

// parseNotification reads a datagram: lines of the form NAME=VALUE, which end with LF, CR or both.
// Others are passed over. As in systemd, one NUL may end the datagram, and one with a NUL elsewhere
// says nothing.
func parseNotification(datagram []byte) (n notification) {
	datagram = bytes.TrimSuffix(datagram, []byte{0})
	if bytes.IndexByte(datagram, 0) >= 0 {
		return n
	}
	for line := range bytes.FieldsFuncSeq(datagram, func(r rune) bool { return r == '\n' || r == '\r' }) {
		switch string(line) {
		case "READY=1":
			n.ready = true
		case "WATCHDOG=1":
			n.watchdog = true
		case "WATCHDOG=trigger":
			n.trigger = true
		case "STOPPING=1":
			n.stopping = true
		}
		if status, ok := bytes.CutPrefix(line, []byte("STATUS=")); ok {
			n.status = status
		}
	}
	return n
}
