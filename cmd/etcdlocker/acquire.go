package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/endpoint"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/serverdir"
	"github.com/etcdlock/etcdlock/internal/validity"
)

// errNested says that the lock is held by whoever runs this process.
var errNested = errors.New("is already held by the command that asks for it")

// A failure is an error with the exit code and the hint that belong to it.
type failure struct {
	err  error
	hint string
	code int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func codeOf(err error) int {
	var f *failure
	var u *usageError
	var o *endpoint.OptionError
	switch {
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &u), errors.As(err, &o):
		return exitUsage
	}
	return exitNotAcquired
}

// program is what is executed to run the command.
func (o *options) program() string {
	return cmp.Or(o.pulse.nodePath, o.pulse.interpreter(), o.command[0])
}

// findCommand looks the command's program up before etcd is touched.
func (o *options) findCommand() (string, error) {
	if len(o.command) == 0 {
		return "", nil
	}
	if o.pulse.node && !isModule(o.program(), o.command[0]) {
		return "", usagef("-n and ETCD_CHILD_IS_NODE=1 are for Node.js modules: name the module's file, without node; nothing was locked",
			"cannot run %q: there is no such module", o.command[0])
	}
	path, err := lookPath(o.program())
	if err != nil && !errors.Is(err, exec.ErrDot) {
		hint := "check the name and PATH; nothing was locked"
		switch {
		case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EISDIR):
			hint = "it is a directory or not executable; nothing was locked"
		case o.pulse.node && o.pulse.nodePath == "":
			hint = "install Node.js, or name its program with --node-path; nothing was locked"
		case len(o.command) == 1 && strings.ContainsAny(o.program(), " \t\n"):
			hint = "check the name; a line for a shell goes after sh -c, as in -- sh -c 'a; b': here it is one word, and so a program's name; nothing was locked"
		}
		return "", usagef(hint, "cannot run %q: %w", o.program(), errors.Unwrap(err))
	}
	if err := checkInterpreter(path); err != nil {
		return "", err
	}
	return path, nil
}

// A holder has the locks.
type holder struct {
	*locker
	client   *clientv3.Client
	lock     contender
	held     held                    // once acquired is closed
	work     context.Context         // ends when one of the locks is about to be lost
	endWait  context.CancelCauseFunc // ends the wait for them
	run      *command
	waits    chan struct{} // receives when one of the locks is waited for
	acquired chan struct{} // closed when all are held
	renewed  chan struct{} // receives after a renewal
	since    time.Time
	// Etcd did not confirm the release.
	unconfirmed bool
	endpoint    string // for the command's environment

	before []os.Signal // came before the command had started

	nothingLeft bool // of the command, as its guard has found

	extra atomic.Int64 // a time.Duration: what margin returned last
	tight sync.Once    // it has been found to be nearly too small
}

// acquire gets the lock, or says why not. Meanwhile the command, which is found at path, is
// prepared.
func (l *locker) acquire(ctx context.Context, path string) (*holder, error) {
	if l.embedded != "" || l.etcd.DiscoverySRV != "" {
		<-l.caught() // what comes next may take long
	}
	config, err := l.config(ctx)
	if err != nil {
		return nil, err
	}
	l.proxy = endpoint.Proxy(config.Endpoints)
	client, err := l.etcd.Dial(ctx, config, l.connectTimeout)
	if err != nil {
		return nil, l.explain(err)
	}
	if l.embedded != "" {
		go l.keepServer(client)
	}
	h := &holder{
		locker:   l,
		client:   client,
		waits:    make(chan struct{}, 1),
		acquired: make(chan struct{}),
		renewed:  make(chan struct{}, 1),
		endpoint: strings.Join(config.Endpoints, ","),
	}
	record.Program.Under = under(h.heldAbove())
	h.run = l.prepare(path)
	if err := h.lockIt(ctx); err != nil {
		h.leave()
		return nil, err
	}
	return h, nil
}

// leave ends everything that the holder needed beside the locks.
func (h *holder) leave() {
	h.run.close()
	h.client.Close()
}

// config returns where and how to reach etcd, starting the embedded one if it is asked for and does
// not run.
func (l *locker) config(ctx context.Context) (clientv3.Config, error) {
	if l.embedded != "" {
		if err := l.startServer(ctx); err != nil {
			return clientv3.Config{}, err
		}
	}
	return l.etcd.Config()
}

// lockIt waits for the locks.
func (h *holder) lockIt(ctx context.Context) (err error) {
	if h.lock, err = h.newContender(); err != nil {
		return err
	}
	timing := h.lock.session()
	timing.RefreshInterval, timing.Grace, timing.ConnectTimeout = h.refresh, h.grace, h.connectTimeout
	timing.Margin = h.margin
	if h.freeze {
		timing.Grace = validity.NoGrace // in doubt, the end is not the lock's to announce
	}
	caught := h.caught() // while that round trip is waited for
	if err := timing.Prepare(ctx); err != nil {
		return h.explain(err)
	}
	<-caught // what kills us from here on would leave something in etcd
	if err := h.waitForIt(ctx); err != nil {
		h.withdraw(err)
		return h.explain(err)
	}
	h.work, h.since = h.held.Context(context.Background()), time.Now()
	close(h.acquired)
	return nil
}

// onWait passes on that one of the locks is waited for.
func (h *holder) onWait() {
	select {
	case h.waits <- struct{}{}:
	default:
	}
}

// onRenew passes on that the locks are valid for longer. Those of several that are there while the
// next is waited for are renewed as well.
func (h *holder) onRenew() {
	select {
	case <-h.acquired:
	default:
		return
	}
	h.run.extend(h.validUntil(), h.allowed())
	select {
	case h.renewed <- struct{}{}:
	default:
	}
}

// waitForIt waits for our turn.
func (h *holder) waitForIt(ctx context.Context) (err error) {
	if h.try {
		h.held, err = h.lock.acquire(ctx, true)
		if errors.Is(err, etcdlock.ErrBusy) {
			if done, _ := h.takeOver(ctx); done {
				h.held, err = h.lock.acquire(ctx, true)
			}
		}
		return h.sayWho(ctx, err)
	}
	ctx, h.endWait = context.WithCancelCause(ctx)
	defer h.endWait(nil)
	meanwhile, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if h.wait > 0 {
		wg.Go(func() { h.endInTime(meanwhile) })
	}
	concurrently := []func(context.Context){h.takeOverWhenPossible, h.endIfNested}
	line := h.newWaitingLine(os.Stderr)
	if h.saysBusy() {
		concurrently = append(concurrently, line.run)
	}
	wg.Go(func() {
		select {
		case <-h.waits:
			for _, do := range concurrently {
				wg.Go(func() { do(meanwhile) })
			}
		case <-meanwhile.Done():
		}
	})
	begun := time.Now()
	h.held, err = h.lock.acquire(ctx, false)
	stop()
	wg.Wait()
	if err == nil && line.told != "" {
		h.voice.notef("%s acquired after %v", h.keys.locks(), time.Since(begun).Round(time.Second))
	}
	return line.sayLast(err)
}

// explain gives an error of the lock or the client its exit code and its hint.
func (l *locker) explain(err error) error {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f
	}
	hint, code := l.hint(err), l.code(err)
	if isUnreached(err) {
		err = fmt.Errorf("%w%s", err, l.byProxy())
	}
	return &failure{err: err, hint: hint, code: code}
}

// isUnreached reports whether an error says that etcd did not answer.
func isUnreached(err error) bool { return errors.Is(err, etcdlock.ErrNoAnswer) || isAway(err) }

// isDenied reports whether an error says that etcd does not let this user do what was asked.
func isDenied(err error) bool {
	for _, no := range []error{
		rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrInvalidAuthToken,
	} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// byProxy ends a sentence about an etcd that does not answer: it names the proxy, if one is used.
func (l *locker) byProxy() string {
	if l.proxy == "" {
		return ""
	}
	return "; it was asked through the proxy " + l.proxy
}

// isBusy reports whether the lock was not acquired because it is held.
func isBusy(err error) bool {
	if late := tooLate(err); late != nil {
		return late.unknown == nil
	}
	return errors.Is(err, etcdlock.ErrBusy) || errors.Is(err, errNested)
}

// saysBusy reports whether a lock that is held is worth a line on stderr. With 0 as the code for
// it, all is well.
func (o *options) saysBusy() bool { return o.conflictCode != 0 || o.verbose }

// notAcquired says why the lock was not acquired, and returns the exit code.
func (l *locker) notAcquired(err error) int {
	if isBusy(err) && !l.saysBusy() {
		return 0
	}
	return l.voice.fail(err, codeOf(err))
}

func (l *locker) code(err error) int {
	if isBusy(err) {
		return l.conflictCode
	}
	return exitNotAcquired
}

// showWho names the command that says who has the lock that an error is about.
func (l *locker) showWho(err error) string {
	key := "KEY"
	var busy *etcdlock.BusyError
	var other *etcdlock.ModeError
	switch {
	case errors.As(err, &other):
		key = plain.Operand(other.Key)
	case errors.As(err, &busy):
		key = plain.Operand(busy.Key)
	case len(l.keys) == 1:
		key = plain.Operand(l.keys[0])
	}
	return "etcdlockctl show" + l.etcd.Given() + " " + key + " says who is there"
}

// hint says what to do about an error.
func (l *locker) hint(err error) string {
	var named *namedError
	switch misfit, refusal := endpoint.Misfit(err), endpoint.Refusal(err); {
	case errors.Is(err, etcdlock.ErrMode):
		return "give all its users the same --slots, or use another key; " + l.showWho(err)
	case errors.As(err, &named) && named.shared && l.mode == etcdlock.Exclusive:
		return "try again later, allow more time with --wait, or share the lock with -s; " + l.showWho(err)
	case isBusy(err) && !errors.Is(err, errNested), errors.Is(err, errNotTaken):
		return "try again later, or allow more time with --wait; " + l.showWho(err)
	case errors.Is(err, serverdir.ErrUnusable):
		return serverdir.NameAnother + ", with --embedded=DIR"
	case errors.Is(err, serverdir.ErrNoControl):
		return "install etcdlockctl beside etcdlocker: it is what runs the embedded etcd"
	case l.embedded != "" && isUnreached(err) && tooLate(err) != nil:
		return serverdir.LookAtIt
	case l.embedded != "" && isUnreached(err):
		return serverdir.LookAtIt + "; --connect-timeout waits longer"
	case misfit != "" && isUnreached(err):
		return misfit
	case tooLate(err) != nil && isUnreached(err):
		return "check that etcd runs and that it can be reached (at " + l.etcd.String() + "), and try again; " + l.showWho(err)
	case l.proxy != "" && isUnreached(err):
		return "check that etcd runs, that -e (now " + l.etcd.String() + ") and the TLS options fit, and that the proxy allows CONNECT to it; NO_PROXY names hosts that need no proxy"
	case errors.Is(err, etcdlock.ErrNoAnswer), errors.Is(err, context.DeadlineExceeded):
		return "check that etcd runs and that -e (now " + l.etcd.String() + ") and the TLS options fit; --connect-timeout waits longer; for one machine alone, --embedded runs an etcd"
	case refusal != "":
		return refusal
	case isDenied(err):
		return "check user and password, or the token; the user needs to read and write the key and everything below key/, and key~tail: to read it with -s, to write it with --slots"
	case errors.Is(err, rpctypes.ErrNoSpace):
		return endpoint.MakeRoom
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return "etcd must take at least 8 operations in a transaction, or 10 for --slots (its --max-txn-ops, 128 by default)"
	case l.embedded != "":
		return "etcdlockctl serve --dir " + plain.Shell(l.embedded) + " shows how it starts; a file log in its directory says what it did before"
	}
	return "-v shows what was tried; etcd's log may say why"
}
