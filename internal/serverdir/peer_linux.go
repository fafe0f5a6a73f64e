package serverdir

import "golang.org/x/sys/unix"

// peerOf returns the id of the process at the other end of a socket, 0 if it has none in this pid
// namespace.
func peerOf(fd int) (pid int, err error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}
