// Package guard is the second process of etcdlocker: it keeps the promise when etcdlocker itself is killed or stopped.
//
//	etcdlocker ──▶ guard ──▶ the command and all it starts
//
// The guard is the same program, executed again, which enters its work here before anything else of it is initialised.
// It talks to nobody but etcdlocker. It is the parent of the command and adopts every descendant's orphans, so nothing
// leaves it, and it knows until when the lock is valid: if that moment comes, or if etcdlocker is gone, it kills
// everything below it until the kernel says that it has no children.
//
// Each of the two watches over the same end of validity, so that killing or stopping either leaves nothing running. For
// both at once there is a timer in the kernel that kills the guard, stopped or not, and with it the command itself; what
// that one has started is then not reached.
//
//	etcdlocker to guard             guard to etcdlocker
//	start: until when, lease, ...   started: process id (and a descriptor of it), or why not
//	extend: until when              exited: how, and whether something is left
//	(end of file: kill everything)  (end of file: the guard is gone)
//
// Messages are packets of a socket pair: one byte that says what it is, and what belongs to it.
package guard

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/etcdlock/etcdlock/internal/boottime"
)

// Name is the guard's own name for itself, the first word of its command line.
const Name = "etcdlocker-guard"

// kind is the first byte of a message.
type kind byte

const (
	start   kind = 'S'
	extend  kind = 'V'
	started kind = 'P'
	failed  kind = 'F'
	exited  kind = 'E'
)

// maxMessage bounds a packet. The largest has a key, an id and a list of endpoints in it.
const maxMessage = 128 << 10

var errMessage = errors.New("guard: a message that makes no sense")

// An order says until when the lock is valid, and the first one what is to be started.
type order struct {
	validUntil boottime.Instant
	lease      int64    // that the lock hangs on
	pgid       int      // the process group of the command
	env        []string // to add to the environment of the command
}

func (o order) message(k kind) []byte {
	m := binary.LittleEndian.AppendUint64([]byte{byte(k)}, uint64(o.validUntil))
	m = binary.LittleEndian.AppendUint64(m, uint64(o.lease))
	m = binary.LittleEndian.AppendUint32(m, uint32(o.pgid))
	for _, kv := range o.env {
		m = append(append(m, kv...), 0)
	}
	return m
}

// parseOrder is the reverse of message.
func parseOrder(m []byte) (o order, err error) {
	const head = 1 + 8 + 8 + 4
	if len(m) < head {
		return order{}, errMessage
	}
	o.validUntil = boottime.Instant(binary.LittleEndian.Uint64(m[1:]))
	o.lease = int64(binary.LittleEndian.Uint64(m[9:]))
	o.pgid = int(int32(binary.LittleEndian.Uint32(m[17:])))
	for rest := m[head:]; len(rest) > 0; {
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			return order{}, errMessage
		}
		o.env, rest = append(o.env, string(rest[:end])), rest[end+1:]
	}
	return o, nil
}

// numbers is a message of two numbers.
func numbers(k kind, a, b uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32([]byte{byte(k)}, a), b)
}

// parseNumbers is the reverse of numbers.
func parseNumbers(m []byte) (a, b uint32, err error) {
	if len(m) != 9 {
		return 0, 0, errMessage
	}
	return binary.LittleEndian.Uint32(m[1:]), binary.LittleEndian.Uint32(m[5:]), nil
}
