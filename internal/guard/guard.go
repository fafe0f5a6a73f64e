// Package guard is the second process of etcdlocker: it keeps the promise when etcdlocker itself is
// killed or stopped.
//
//	etcdlocker --> guard --> the command and all it starts
//
// The guard is the same program, executed again, which enters its work here before anything else of
// it is initialised. It talks to nobody but etcdlocker. It is the parent of the command and adopts
// every descendant's orphans, so nothing leaves it, and it knows until when the lock is valid: if
// that moment comes, or if etcdlocker is gone, it kills everything below it until the kernel says
// that it has no children.
//
// Each of the two watches over the same end of validity, so that killing or stopping either leaves
// nothing running. If both are stopped, a timer in the kernel continues the guard (SIGCONT) shortly
// before the end of validity, and again every 10 ms, so that it can kill everything. Another timer
// kills a guard that does not get to that, 1 s after the end of validity (200 ms, while the command
// is being executed), and with it the command itself; what the command has started is then not
// reached.
//
//	etcdlocker to guard             guard to etcdlocker
//	extend: until when, ...         ready: where the command's control group is
//	start: until when, lease, ...   begun: the command is about to be executed
//	hold: whether it stands still   started: process id (and a descriptor of it); or failed: why
//	end: kill everything            stopped: whether the command is, when that has changed
//	(end of file: the same)         measured: what killing takes, if that has changed
//	                                end: everything is being killed
//	                                sent: a signal that came to the guard
//	                                exited: how, and whether something is left
//	                                (end of file: the guard is gone)
//
// Messages that were sent before a guard is killed arrive all the same. So if begun is not among
// them, the command has not been executed, and another guard may do it; if it is, nobody may ever
// again: a command runs once.
//
// Messages are packets of a socket pair: one byte that says what it is, and what belongs to it.
package guard

import (
	"errors"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
)

// Name is the guard's own name for itself, the first word of its command line.
const Name = "etcdlocker-guard"

// kind is the first byte of a message.
type kind byte

const (
	start    kind = 'S'
	extend   kind = 'V'
	hold     kind = 'H'
	end      kind = 'K'
	ready    kind = 'G'
	begun    kind = 'B'
	started  kind = 'P'
	failed   kind = 'F'
	exited   kind = 'E'
	stopped  kind = 'T'
	measured kind = 'M'
	sent     kind = 'W'
)

// Why a command was not started, beside the number of the kernel's error.
const (
	cannotExecute  = iota
	cannotAlarm    // the kernel has no timers for this user
	cannotBeBelow  // the command would run at the guard's own real-time priority
	tooLateToStart // too little validity is left
)

// maxMessage bounds a packet. The largest has the list of all locks, of up to 64 KiB, a key, an id
// and a list of endpoints in it.
const maxMessage = 128 << 10

var errMessage = errors.New("guard: a message that makes no sense")

// An Order says until when the lock is valid, and the one to start how the command is to be
// started.
type Order struct {
	ValidUntil boottime.Instant
	Allowed    time.Duration // see Command.Extend
	// By how much sooner than ValidUntil everything may be killed; see validity.MaxAhead.
	Ahead time.Duration
	By    boottime.Instant // it must be started, or not at all
	Lease int64            // that all locks hang on; 0: there are two
	Env   []string         // of the command, to set; a name alone is taken away
	// A descriptor for the command, which finds its number as Node.js does; 0: none.
	Channel  int
	Checks   bool             // the channel is that of Checks instead
	NoTimers bool             // the kernel's timers are done without if there are none to be had
	Ignored  []syscall.Signal // that the command is started to ignore

	mask        uint64 // the signals that the command has blocked
	pgid        int    // the process group of the command; 0: the one that the guard was started in
	first       int    // of etcdlocker's words, the first one of the command
	interpreter string // a word to put before those, empty: none
	path        string // of the program
}

// message does not hold the descriptor, which goes beside it.
func (o Order) message(k kind) []byte {
	m := []byte{byte(k)}
	for _, n := range []uint64{uint64(o.ValidUntil), uint64(o.By), uint64(o.Lease), uint64(o.pgid), uint64(o.first), flag(o.Checks), flag(o.NoTimers),
		uint64(o.Allowed), uint64(o.Ahead), setOf(o.Ignored), o.mask} {
		m = appendNumber(m, n)
	}
	for _, s := range append([]string{o.path, o.interpreter}, o.Env...) {
		m = append(append(m, s...), 0)
	}
	return m
}

// parseOrder is the reverse of message.
func parseOrder(m []byte) (o Order, err error) {
	const head = 1 + 11*8
	if len(m) <= head || m[len(m)-1] != 0 {
		return Order{}, errMessage
	}
	o.ValidUntil = boottime.Instant(number(m[1:]))
	o.By = boottime.Instant(number(m[9:]))
	o.Lease = int64(number(m[17:]))
	o.pgid = int(number(m[25:]))
	o.first = int(number(m[33:]))
	o.Checks = number(m[41:]) != 0
	o.NoTimers = number(m[49:]) != 0
	o.Allowed, o.Ahead = time.Duration(number(m[57:])), time.Duration(number(m[65:]))
	o.Ignored, o.mask = signalsOf(number(m[73:])), number(m[81:])
	var words []string
	for begin, i := head, head; i < len(m); i++ {
		if m[i] == 0 {
			words = append(words, string(m[begin:i]))
			begin = i + 1
		}
	}
	if len(words) < 2 {
		return Order{}, errMessage
	}
	o.path, o.interpreter, o.Env = words[0], words[1], words[2:]
	return o, nil
}

// setOf is signals in a message: a bit for each, the lowest for signal 1.
func setOf(signals []syscall.Signal) (set uint64) {
	for _, sig := range signals {
		set |= 1 << (sig - 1)
	}
	return set
}

// signalsOf is the reverse of setOf.
func signalsOf(set uint64) (signals []syscall.Signal) {
	for sig := syscall.Signal(1); set != 0; sig, set = sig+1, set>>1 {
		if set&1 != 0 {
			signals = append(signals, sig)
		}
	}
	return signals
}

// flag is a truth value in a message.
func flag(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// A Measure is what it would take to kill everything.
type Measure struct {
	WakeUp    time.Duration // from when the guard should run to when it does; see sched.Pressure
	Walk      time.Duration // to find all processes of the command
	Processes int           // how many these are
}

// Extra is by how much the margin before etcd may free the lock grows by that.
//
// Killing begins 10 ms before it must be done. The guard has to wake up, stop what runs and then
// kill it, for each of which it may wait for a processor. To stop a process was measured to take
// one to two times as long as to find it (2,500 busy ones: 0.2 to 0.4 s on two processors; on a
// slow machine 75 µs each, and 36 µs to find it). Twice the sum leaves room for a machine that is
// busier by then: beside two more trees of 1,000 as they started, one took four times as long. To
// freeze them in a control group, where they are found faster, took 19 ms.
func (m Measure) Extra() time.Duration {
	const perProcess = 10 * time.Microsecond
	return 10*time.Millisecond + 3*m.WakeUp + 6*m.Walk + time.Duration(m.Processes)*perProcess
}

func (m Measure) message() []byte {
	return appendNumber(numbers(measured, uint64(m.WakeUp), uint64(m.Walk)), uint64(m.Processes))
}

// parseMeasure is the reverse of message.
func parseMeasure(m []byte) (Measure, error) {
	if len(m) != 1+3*8 {
		return Measure{}, errMessage
	}
	return Measure{time.Duration(number(m[1:])), time.Duration(number(m[9:])), int(number(m[17:]))}, nil
}

// An extension says until when the lock is valid now.
type extension struct {
	until, sent boottime.Instant // sent: when it was
	allowed     time.Duration    // see Command.Extend
}

func (e extension) message() []byte {
	return appendNumber(numbers(extend, uint64(e.until), uint64(e.sent)), uint64(e.allowed))
}

// parseExtension is the reverse of message.
func parseExtension(m []byte) (extension, error) {
	if len(m) != 1+3*8 {
		return extension{}, errMessage
	}
	return extension{boottime.Instant(number(m[1:])), boottime.Instant(number(m[9:])), time.Duration(number(m[17:]))}, nil
}

// numbers is a message of two numbers.
func numbers(k kind, a, b uint64) []byte { return appendNumber(appendNumber([]byte{byte(k)}, a), b) }

// parseNumbers is the reverse of numbers.
func parseNumbers(m []byte) (a, b uint64, err error) {
	if len(m) != 1+2*8 {
		return 0, 0, errMessage
	}
	return number(m[1:]), number(m[9:]), nil
}

func appendNumber(m []byte, n uint64) []byte {
	for range 8 {
		m = append(m, byte(n))
		n >>= 8
	}
	return m
}

func number(m []byte) (n uint64) {
	for i := 7; i >= 0; i-- {
		n = n<<8 | uint64(m[i])
	}
	return n
}
