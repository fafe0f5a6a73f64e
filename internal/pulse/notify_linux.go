package pulse

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A notifySocket receives datagrams from processes of this user.
type notifySocket struct {
	conn   *net.UnixConn
	name   string // as in NOTIFY_SOCKET
	rights []byte
}

const notifyPrefix = "notify-"

// newNotifySocket prefers a path: it can be reached from another network namespace, some programs
// know nothing else, and in a directory of one's own other users cannot even fill the queue. The
// abstract namespace needs no directory.
func newNotifySocket(dir string) (s *notifySocket, err error) {
	// Process ids are not unique where a namespace is shared by several of them.
	id := notifyPrefix + rand.Text()
	if dir != "" {
		removeDead(dir)
		s, err = listen(filepath.Join(dir, id))
	}
	if s == nil {
		s, err = listen("@etcdlock/" + id)
	}
	if err != nil {
		return nil, fmt.Errorf("a socket for signs of life: %w", err)
	}
	return s, nil
}

func listen(name string) (*notifySocket, error) {
	// Before it has a name, or the first datagram would come without its sender.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if failed := raw.Control(func(fd uintptr) {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		}); failed != nil {
			return failed
		}
		return err
	}}
	conn, err := config.ListenPacket(context.Background(), "unixgram", name)
	if err != nil {
		return nil, err
	}
	// Descriptors may come as well. They are not wanted, and closed by the kernel as there is no
	// room for them: systemd-notify waits for that.
	return &notifySocket{conn: conn.(*net.UnixConn), name: name, rights: make([]byte, unix.CmsgSpace(unix.SizeofUcred))}, nil
}

// receive waits for a datagram, and reports whether it is of this user.
func (s *notifySocket) receive(buf []byte) (datagram []byte, ours bool, err error) {
	n, rn, flags, _, err := s.conn.ReadMsgUnix(buf, s.rights)
	if err != nil {
		return nil, false, err
	}
	messages, err := unix.ParseSocketControlMessage(s.rights[:rn])
	for _, m := range messages {
		sender, err := unix.ParseUnixCredentials(&m)
		ours = ours || err == nil && (int(sender.Uid) == os.Getuid() || int(sender.Uid) == os.Geteuid())
	}
	switch {
	case err != nil || !ours:
		return nil, false, nil
	case flags&unix.MSG_TRUNC != 0:
		return nil, true, errTooLong
	}
	return buf[:n], true, nil
}

func (s *notifySocket) close() {
	s.conn.Close()
	if !strings.HasPrefix(s.name, "@") {
		os.Remove(s.name)
	}
}

// young is how old a socket is, at most, that may be about to be listened to.
const young = time.Minute

// removeDead removes the sockets of those who were killed before they could.
func removeDead(dir string) {
	names, _ := filepath.Glob(filepath.Join(dir, notifyPrefix+"*"))
	for _, name := range names {
		if info, err := os.Lstat(name); err != nil || time.Since(info.ModTime()) < young {
			continue
		}
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
		if err == nil {
			conn.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			os.Remove(name)
		}
	}
}
