package serverdir

import "golang.org/x/sys/unix"

// peerOf returns the id of the process at the other end of a socket.
func peerOf(fd int) (pid int, err error) {
	return unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
}
