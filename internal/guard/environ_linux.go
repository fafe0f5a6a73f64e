package guard

import (
	"slices"
	"strconv"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// What a guard must know before it can be told anything stands in its environment, among what is the command's.
//
// One processor is enough for it: Go's runtime then starts fewer threads, and none that looks around for more work whenever
// there is some. What the command's environment says of processors is kept under another name meanwhile.
const (
	processors      = "GOMAXPROCS="
	keptProcessors  = "ETCDLOCKER_GUARD_GOMAXPROCS="
	singleProcessor = processors + "1"
	socketNumber    = "ETCDLOCKER_GUARD_SOCKET="
)

// guardEnvironment returns the environment of a guard that is to run its command with env, but for
// credentials, and has its end of the channel under a number.
func guardEnvironment(env []string, socket int) []string {
	env = slices.DeleteFunc(without(env, socketNumber, keptProcessors), isCredential)
	return append(renamed(env, processors, keptProcessors), singleProcessor, socketNumber+strconv.Itoa(socket))
}

// commandEnvironment returns env again.
func commandEnvironment(env []string) []string {
	return renamed(without(env, socketNumber, processors), keptProcessors, processors)
}

// socketOf returns the number.
func socketOf(env []string) (socket int, ok bool) {
	for _, kv := range env {
		if n, is := kernel.CutPrefix(kv, socketNumber); is {
			socket, err := strconv.Atoi(n)
			return socket, err == nil
		}
	}
	return 0, false
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
