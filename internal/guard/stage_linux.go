package guard

import (
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/goruntime"
)

// stageName is what this program is called while it stands between guard and command: it is
// executed in place of the command, learns its process id, and executes the command.
//
// A service manager that listens on sockets for a service (systemd.socket) says in LISTEN_PID which
// process they are meant for. That is etcdlocker, and the command takes no socket that is not meant
// for itself.
const stageName = "etcdlocker-stage"

const (
	listenPID   = "LISTEN_PID="
	listenPIDFD = "LISTEN_PIDFDID=" // the same as the number of its pidfd; it may be missing
)

// isListener reports whether sockets are meant for etcdlocker, which is the parent of the guard.
func isListener(env []string) bool {
	return slices.Contains(env, listenPID+strconv.Itoa(os.Getppid()))
}

// staged returns what to execute in place of a program, so that sockets that are meant for
// etcdlocker are the program's.
func staged(path string, words []string, ignored []syscall.Signal) (string, []string) {
	return self, append([]string{stageName, strconv.FormatUint(setOf(ignored), 10), path}, words...)
}

// stage is the process. Go's runtime has replaced what it was started to ignore.
func stage() int {
	goruntime.Abort()
	const head = 3 // words before those of the program
	if len(os.Args) <= head {
		return 1
	}
	ignored, _ := strconv.ParseUint(os.Args[1], 10, 64)
	for _, sig := range signalsOf(ignored) {
		signal.Ignore(sig)
	}
	path := os.Args[head-1]
	env := append(without(os.Environ(), listenPID, listenPIDFD), listenPID+strconv.Itoa(os.Getpid()))
	err := syscall.Exec(path, os.Args[head:], env)
	os.Stderr.WriteString("etcdlocker: error: cannot run " + strconv.Quote(path) + ": " + err.Error() + "\n")
	return notExecuted
}

// notExecuted is etcdlocker's exit code for a command that cannot be started. From a stage it comes
// as the command's own.
const notExecuted = 3
