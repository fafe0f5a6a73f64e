package guard

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// conn is one end of the socket pair. Waiting for it is left to Go's poller: a thread that blocks in the kernel would keep
// the runtime looking after it.
type conn struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte // of the last message received
}

// newConn takes over a descriptor, which does not block.
func newConn(fd int) (*conn, error) {
	c := &conn{file: os.NewFile(uintptr(fd), "guard")}
	var err error
	c.raw, err = c.file.SyscallConn()
	return c, err
}

func (c *conn) close() error { return c.file.Close() }

// send sends a message, and a descriptor with it unless that is negative. It does not wait: a guard that does not read is
// as good as dead, and its deadline passes by itself.
func (c *conn) send(m []byte, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	var err error
	if closed := c.raw.Control(func(own uintptr) {
		err = unix.EINTR
		for err == unix.EINTR {
			err = unix.Sendmsg(int(own), m, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
	}); closed != nil {
		return closed
	}
	return err
}

// receive waits for a message, which is there until the next call, and the descriptor that came with it, or a negative
// number. The other side's end is io.EOF.
func (c *conn) receive() (m []byte, fd int, err error) {
	if c.buf == nil {
		c.buf = make([]byte, maxMessage)
	}
	rights := make([]byte, unix.CmsgSpace(4))
	var n, rn int
	if closed := c.raw.Read(func(own uintptr) bool {
		err = unix.EINTR
		for err == unix.EINTR {
			n, rn, _, _, err = unix.Recvmsg(int(own), c.buf, rights, unix.MSG_CMSG_CLOEXEC)
		}
		return err != unix.EAGAIN
	}); closed != nil {
		return nil, -1, closed
	}
	switch {
	case err != nil:
		return nil, -1, err
	case n == 0:
		return nil, -1, io.EOF
	}
	return c.buf[:n], descriptor(rights[:rn]), nil
}

func descriptor(rights []byte) int {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	return fds[0]
}
