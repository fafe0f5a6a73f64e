//go:build unix

package pulse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxLine is how long a message of a module may be, in bytes.
const maxLine = 1 << 20

// parting is how long a module may go on after it has closed its channel: that can be the last but one thing that it does.
const parting = time.Second

// sendWithin bounds a write. What is written is small, and the other side has room for it if it reads at all.
const sendWithin = time.Second

// maxNumber is how large the number of a ping may be: JavaScript's numbers are exact so far.
const maxNumber = 1<<53 - 1

// Node are the answers of a Node.js module to pings, on the channel that child_process.fork makes: lines of JSON on a socket
// pair.
type Node struct {
	ours   *os.File
	theirs int // closed when the command has it
	leave  func()
	log    *slog.Logger
	ping   atomic.Int64 // the number of the last one
	asked  atomic.Bool  // it was not answered yet
	signs  atomic.Int64 // answers that came
	heard  chan News
	quit   chan struct{}
	reader sync.WaitGroup
}

// NewNode returns a channel. Messages that are no answers are logged.
func NewNode(log *slog.Logger) (*Node, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("a channel to the module", err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, os.NewSyscallError("a channel to the module", err)
	}
	return &Node{
		ours:   os.NewFile(uintptr(fds[0]), "channel"),
		theirs: fds[1],
		leave:  sync.OnceFunc(func() { syscall.Close(fds[1]) }),
		log:    log,
		heard:  make(chan News),
		quit:   make(chan struct{}),
	}, nil
}

// Given returns how messages are written. The number of the descriptor is not ours to say: it is another one in the module.
func (n *Node) Given() (env []string, channel int) {
	return []string{"NODE_CHANNEL_SERIALIZATION_MODE=json"}, n.theirs
}

// Begin leaves the other end to the module, and listens.
func (n *Node) Begin() {
	n.leave()
	n.reader.Go(n.read)
}

// Ask sends a ping. If that fails the channel is closed, or the module does not read: neither goes unnoticed.
func (n *Node) Ask() {
	number := rand.Int64N(maxNumber + 1)
	n.ping.Store(number)
	n.asked.Store(true)
	n.send(fmt.Sprintf(`{"ping":%d}`, number))
}

func (n *Node) send(line string) {
	n.ours.SetWriteDeadline(time.Now().Add(sendWithin))
	io.WriteString(n.ours, line+"\n")
}

// Heard receives what the module says.
func (n *Node) Heard() <-chan News { return n.heard }

// Silence says so.
func (n *Node) Silence(limit time.Duration) error {
	which := "a"
	if n.signs.Load() == 0 {
		which = "its first"
	}
	return fmt.Errorf("the module did not answer %s ping within %v", which, limit)
}

// Close closes the channel.
func (n *Node) Close() {
	close(n.quit)
	n.leave()
	n.ours.Close()
	n.reader.Wait()
}

// tell passes news on.
func (n *Node) tell(news News) {
	select {
	case n.heard <- news:
	case <-n.quit:
	}
}

// errClosed says that the module cannot be heard any more.
var errClosed = errors.New("the module closed its channel and went on")

// read hears what the module says until it has closed the channel, or said what makes no sense.
func (n *Node) read() {
	buf := make([]byte, 64<<10)
	lines := lineReader{each: n.message}
	for {
		count, err := n.ours.Read(buf)
		if wrong := lines.write(buf[:count]); wrong != nil {
			n.tell(News{Trouble: wrong})
			return
		}
		if err != nil {
			break
		}
	}
	select {
	case <-time.After(parting):
		n.tell(News{Trouble: errClosed})
	case <-n.quit:
	}
}

// message takes one message.
func (n *Node) message(line []byte, m message) error {
	answered := n.ping.Load()
	switch {
	case m.pong == nil:
		n.log.Debug("message from the module", "text", shortened(line))
		// A module that has sent a handle sends nothing else before it knows that it has come. It has not.
		if string(m.cmd) == `"NODE_HANDLE"` {
			n.send(`{"cmd":"NODE_HANDLE_NACK"}`)
		}
	case !isNumber(m.pong, answered):
		return fmt.Errorf("the module answered ping %d with pong %s", answered, shortened(m.pong))
	case n.asked.Swap(false): // and not for the second time
		n.log.Debug("ping answered", "number", answered)
		n.signs.Add(1)
		n.tell(News{})
	}
	return nil
}

// isNumber reports whether a value is a number with that value.
func isNumber(value []byte, want int64) bool {
	got, err := strconv.ParseFloat(string(value), 64)
	return err == nil && got == float64(want)
}

// A lineReader cuts what comes into lines, and reads them.
type lineReader struct {
	each   func(line []byte, m message) error
	parser lineParser
	kept   []byte // the beginning of a line
}

// write takes what has come. The error is that of each, or says what is wrong with a line.
func (r *lineReader) write(b []byte) error {
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if len(r.kept)+len(line) > maxLine {
			return fmt.Errorf("the module sent a line of more than %d bytes: %s", maxLine, shortened(append(r.kept, line...)))
		}
		if !whole {
			r.kept = append(r.kept, line...)
			return nil
		}
		if len(r.kept) > 0 {
			r.kept = append(r.kept, line...)
			line = r.kept
		}
		m, ok := r.parser.parse(line)
		if !ok {
			return fmt.Errorf("the module sent what is no JSON: %s", shortened(line))
		}
		if err := r.each(line, m); err != nil {
			return err
		}
		r.kept, b = r.kept[:0], rest
	}
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
