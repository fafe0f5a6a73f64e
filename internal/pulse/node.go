//go:build unix

package pulse

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// maxLine is how long a message of a module may be, in bytes.
const maxLine = 1 << 20

// maxNumber is how large the number of a ping may be: JavaScript's numbers are exact so far.
const maxNumber = 1<<53 - 1

// Node are the answers of a Node.js module to pings, on the channel that child_process.fork makes:
// lines of JSON on a socket pair.
type Node struct {
	teller
	ours   *os.File
	raw    syscall.RawConn
	theirs int // closed when the command has it
	leave  func()
	log    *slog.Logger
	signs  atomic.Int64 // answers that came
	reader sync.WaitGroup

	mu     sync.Mutex
	ping   int64 // the number of the last one
	before int64 // and of the one before, which was answered; -1: there was none
	asked  bool  // the last one was not answered yet
}

// NewNode returns a channel. Messages that are no answers are logged.
func NewNode(log *slog.Logger) (*Node, error) {
	ours, theirs, err := newPair("a channel to the module", func() ([2]int, error) {
		return syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	})
	if err != nil {
		return nil, err
	}
	raw, err := ours.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Node{
		teller: newTeller(),
		ours:   ours,
		raw:    raw,
		theirs: theirs,
		leave:  sync.OnceFunc(func() { syscall.Close(theirs) }),
		log:    log,
		ping:   -1,
	}, nil
}

// Given returns how messages are written. The number of the descriptor is not ours to say: it is
// another one in the module.
func (n *Node) Given() (env []string, channel int) {
	return []string{"NODE_CHANNEL_SERIALIZATION_MODE=json"}, n.theirs
}

// Begin leaves the other end to the module, and listens.
func (n *Node) Begin() {
	n.leave()
	n.reader.Go(n.read)
}

// Ask sends a ping. If that fails the channel is closed, or the module does not read: neither goes
// unnoticed.
func (n *Node) Ask() {
	number := rand.Int64N(maxNumber + 1)
	n.mu.Lock()
	n.before, n.ping, n.asked = n.ping, number, true
	n.mu.Unlock()
	n.send(fmt.Sprintf(`{"ping":%d}`, number))
}

// send sends a line, unless the module has not read so much that there is no room for it. It does
// not wait.
func (n *Node) send(line string) {
	n.raw.Control(func(fd uintptr) { syscall.Write(int(fd), []byte(line+"\n")) })
}

// Silence says so.
func (n *Node) Silence(limit time.Duration) supervise.Trouble {
	which, hint := "a", "its event loop was blocked, or its listener is gone; a longer --ttl allows longer pauses"
	if n.signs.Load() == 0 {
		which, hint = "its first", "what it needs is process.on('message', m => process.send({pong: m.ping})); if it only is slow to start, a longer --ttl"
	}
	return supervise.Trouble{Silent: true, Why: problem(hint, "the module did not answer %s ping within %v", which, limit)}
}

// Close closes the channel.
func (n *Node) Close() {
	close(n.quit)
	n.leave()
	n.ours.Close()
	n.reader.Wait()
}

// errClosed says that the module cannot be heard any more.
var errClosed = problem("process.disconnect() belongs to the end of the work: a module has five seconds after it",
	"the module closed its channel and went on")

// read hears what the module says until it has closed the channel.
func (n *Node) read() {
	buf := make([]byte, 64<<10)
	lines := lineReader{each: n.message, wrong: func(err error) { n.tell(News{Trouble: err}) }}
	for {
		count, err := n.ours.Read(buf)
		lines.write(buf[:count])
		if err != nil {
			n.tell(News{Trouble: errClosed, Parting: true, Last: true})
			return
		}
	}
}

// message takes one message.
func (n *Node) message(line []byte, m message) {
	switch {
	case m.pong == nil:
		n.log.Debug("message from the module", "text", shortened(line))
		// A module that has sent a handle sends nothing else before it knows that it has come. It
		// has not.
		if string(m.cmd) == `"NODE_HANDLE"` {
			n.send(`{"cmd":"NODE_HANDLE_NACK"}`)
		}
	default:
		n.answer(m.pong)
	}
}

// answer takes an answer. That to the last ping, or to the one before, may come again: a module may
// answer twice, and take its time.
func (n *Node) answer(pong []byte) {
	n.mu.Lock()
	ping, first := n.ping, n.asked
	right, again := isNumber(pong, ping), isNumber(pong, n.before)
	n.asked = n.asked && !right
	n.mu.Unlock()
	switch {
	case right && first:
		n.log.Debug("ping answered", "number", ping)
		n.signs.Add(1)
		n.tell(News{})
	case !right && !again:
		n.tell(News{Trouble: problem("the answer is the number of the ping, as a number: {pong: m.ping}", "the module answered ping %d with pong %s", ping, shortened(pong))})
	}
}

// isNumber reports whether a value is a number with that value.
func isNumber(value []byte, want int64) bool {
	got, err := strconv.ParseFloat(string(value), 64)
	return err == nil && got == float64(want)
}

// A lineReader cuts what comes into lines, and reads them.
type lineReader struct {
	each   func(line []byte, m message)
	wrong  func(error) // called for a line that is not a message
	parser lineParser
	kept   []byte // the beginning of a line
	skip   bool   // the line is too long, and passed over to its end
}

// write takes what has come.
func (r *lineReader) write(b []byte) {
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !r.skip && len(r.kept)+len(line) > maxLine {
			r.wrong(problem("the channel is for answers to pings: send the rest in another way", "the module sent a message of more than %d bytes: %s", maxLine, shortened(append(r.kept, line...))))
			r.skip = true
		}
		switch {
		case !whole && r.skip:
			return
		case !whole:
			r.kept = append(r.kept, line...)
			return
		case !r.skip:
			r.line(line)
		}
		r.kept, r.skip, b = r.kept[:0], false, rest
	}
}

// line reads a line, of which the beginning may be kept.
func (r *lineReader) line(line []byte) {
	if len(r.kept) > 0 {
		r.kept = append(r.kept, line...)
		line = r.kept
	}
	m, ok := r.parser.parse(line)
	if !ok {
		r.wrong(problem("only process.send may write to the channel", "the module sent text that is not JSON: %s", shortened(line)))
		return
	}
	r.each(line, m)
}

// newPair makes two connected descriptors that nobody inherits by accident: the first one is ours,
// and waited for by Go's poller, the other one blocks, and is for somebody else.
func newPair(name string, pair func() ([2]int, error)) (ours *os.File, theirs int, err error) {
	syscall.ForkLock.RLock()
	fds, err := pair()
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, -1, os.NewSyscallError(name, err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, -1, os.NewSyscallError(name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), fds[1], nil
}

// maxShown is how much of what a command says is shown, in bytes.
const maxShown = 120

// shortened returns the beginning of a text for a message.
func shortened(text []byte) string {
	text = bytes.TrimSpace(text)
	if len(text) <= maxShown {
		return string(bytes.ToValidUTF8(text, []byte("?")))
	}
	return string(bytes.ToValidUTF8(text[:maxShown], []byte("?"))) + fmt.Sprintf("... (%d bytes)", len(text))
}
