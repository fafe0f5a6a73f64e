package guard

import (
	"io"

	"golang.org/x/sys/unix"
)

// conn is one end of the socket pair.
type conn struct {
	fd  int
	buf []byte // of the last message received
}

// send sends a message, and a descriptor with it unless that is negative. It does not wait: a guard that does not read is
// as good as dead, and its deadline passes by itself.
func (c *conn) send(m []byte, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(c.fd, m, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive waits for a message, which is there until the next call. The other side's end is io.EOF.
func (c *conn) receive() ([]byte, error) {
	m, fd, err := c.receiveWithFD()
	if fd >= 0 {
		unix.Close(fd)
	}
	return m, err
}

// receiveWithFD also returns the descriptor that came with the message, or a negative number.
func (c *conn) receiveWithFD() (m []byte, fd int, err error) {
	if c.buf == nil {
		c.buf = make([]byte, maxMessage)
	}
	rights := make([]byte, unix.CmsgSpace(4))
	for {
		n, rn, _, _, err := unix.Recvmsg(c.fd, c.buf, rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, -1, err
		case n == 0:
			return nil, -1, io.EOF
		}
		return c.buf[:n], descriptor(rights[:rn]), nil
	}
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
