//go:build unix && !linux

package pulse

import "errors"

// A notifySocket cannot tell who sends on this system.
type notifySocket struct{ name string }

func newNotifySocket(string) (*notifySocket, error) {
	return nil, errors.New("watching over signs sent to NOTIFY_SOCKET needs Linux")
}

func (s *notifySocket) receive([]byte) (datagram []byte, ours bool, err error) {
	return nil, false, errTooLong
}

func (s *notifySocket) close() {}
