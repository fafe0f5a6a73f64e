package guard

import (
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// What a guard must know before it can be told anything stands in its environment, among what is
// the command's.
//
// One processor is enough for it: Go's runtime then starts fewer threads, and none that looks
// around for more work whenever there is some. What the command's environment says of processors is
// kept under another name meanwhile.
const (
	processors      = "GOMAXPROCS="
	singleProcessor = processors + "1"
	socketNumber    = "ETCDLOCKER_GUARD_SOCKET="
	slackNumber     = "ETCDLOCKER_GUARD_SLACK=" // in ns: the timer slack of the command
)

// kept stands before the names of variables of the command's that are kept under another name.
const kept = "ETCDLOCKER_KEPT_"

// debugging is by which Go's runtime and library are debugged, and made compatible with older ones.
const debugging = "GODEBUG="

// steering are variables by which whoever runs a command steers Go's runtime in it, and not in what
// runs it.
var steering = []string{"GOGC=", "GOMEMLIMIT=", debugging}

// Unsteer executes this program once more if GODEBUG is set, with that kept: most of it is read
// once, at the start. If that is not possible, it steers this process.
func Unsteer() {
	if isSet(debugging) {
		syscall.Exec(self, os.Args, keep(os.Environ(), debugging))
	} else if isSet(kept+debugging) && len(os.Args) > 0 {
		// It is called like the file that was executed, "exe".
		_, name, ok := kernel.CutLast(os.Args[0], '/')
		if !ok {
			name = os.Args[0]
		}
		kernel.SetName(name)
	}
}

// isSet reports whether there is a variable, whose name ends with the equals sign.
func isSet(name string) bool {
	_, is := os.LookupEnv(name[:len(name)-1])
	return is
}

// environ returns the environment that this process was started with.
func environ() []string { return restore(os.Environ(), debugging) }

// guardEnvironment returns the environment of a guard that is to run its command with env, but for
// credentials, and has its end of the channel under a number.
func guardEnvironment(env []string, socket int) []string {
	env = slices.DeleteFunc(without(env, socketNumber, slackNumber), isCredential)
	return append(keep(keep(env, steering...), processors), singleProcessor, socketNumber+strconv.Itoa(socket))
}

// commandEnvironment returns env again.
func commandEnvironment(env []string) []string {
	return restore(restore(without(env, socketNumber, slackNumber, processors), steering...), processors)
}

// numberOf returns the number that a variable has, whose name ends with the equals sign.
func numberOf(env []string, name string) (n int, ok bool) {
	for _, kv := range env {
		if digits, is := kernel.CutPrefix(kv, name); is {
			n, err := strconv.Atoi(digits)
			return n, err == nil
		}
	}
	return 0, false
}

// keep returns env with some variables under other names. Names end with the equals sign.
func keep(env []string, names ...string) []string {
	for _, name := range names {
		env = renamed(without(env, kept+name), name, kept+name)
	}
	return env
}

// restore is the reverse of keep.
func restore(env []string, names ...string) []string {
	for _, name := range names {
		env = renamed(env, kept+name, name)
	}
	return env
}

// renamed returns env with a variable under another name. Both end with the equals sign.
func renamed(env []string, from, to string) []string {
	var as []string
	for _, kv := range env {
		if value, ok := kernel.CutPrefix(kv, from); ok {
			kv = to + value
		}
		as = append(as, kv)
	}
	return as
}
