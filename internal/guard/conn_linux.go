package guard

import (
	"io"
	"os"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// conn is one end of the socket pair. Waiting for it is left to Go's poller: a thread that blocks
// in the kernel would keep the runtime looking after it.
type conn struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte // of the last message received
}

// newConn takes over a descriptor.
func newConn(fd int) (*conn, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	c := &conn{file: os.NewFile(uintptr(fd), "guard")}
	var err error
	c.raw, err = c.file.SyscallConn()
	return c, err
}

func (c *conn) close() error { return c.file.Close() }

// send sends a message, and another descriptor with it if that is positive. It does not wait: a
// guard that does not read is as good as dead, and its deadline passes by itself.
func (c *conn) send(m []byte, with int) (err error) {
	if closed := c.raw.Control(func(fd uintptr) { err = sendTo(int(fd), m, with) }); closed != nil {
		return closed
	}
	return err
}

// sendTo sends a message by way of a descriptor, and another descriptor with it if that is
// positive. It does not wait.
func sendTo(fd int, m []byte, with int) error {
	var rights []byte
	if with > 0 {
		rights = syscall.UnixRights(with)
	}
	return kernel.Uninterrupted(func() error {
		return kernel.Send(fd, m, rights, syscall.MSG_NOSIGNAL)
	})
}

// receive waits for a message, which is there until the next call, and returns the descriptor that
// came with it, or a negative number. The other side's end is io.EOF.
func (c *conn) receive() (m []byte, with int, err error) {
	if c.buf == nil {
		c.buf = make([]byte, maxMessage)
	}
	var n int
	if closed := c.raw.Read(func(fd uintptr) bool {
		n, with, err = receiveFrom(int(fd), c.buf, syscall.MSG_CMSG_CLOEXEC|syscall.MSG_DONTWAIT)
		return err != syscall.EAGAIN
	}); closed != nil {
		return nil, -1, closed
	}
	if err != nil {
		return nil, -1, err
	}
	return c.buf[:n], with, nil
}

// receiveFrom receives a message by way of a descriptor.
func receiveFrom(fd int, buf []byte, flags int) (n, with int, err error) {
	rights := make([]byte, syscall.CmsgSpace(4))
	var rn int
	receive := func() (err error) {
		n, rn, err = kernel.Receive(fd, buf, rights, flags)
		return err
	}
	if err = kernel.Uninterrupted(receive); err == syscall.ECONNRESET {
		// The other side has closed and left something unread. The kernel says so once, before it
		// hands out what that side had said.
		err = kernel.Uninterrupted(receive)
	}
	switch {
	case err != nil:
		return 0, -1, err
	case n == 0:
		return 0, -1, io.EOF
	}
	return n, descriptor(rights[:rn]), nil
}

func descriptor(rights []byte) int {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return -1
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	return fds[0]
}
