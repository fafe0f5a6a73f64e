package guard

import "github.com/etcdlock/etcdlock/internal/kernel"

// A guard has little to do and one processor is enough for it: Go's runtime then starts fewer threads, and none that looks
// around for more work whenever there is some. The runtime must be told before it starts, in its environment, which is the
// command's as well: what was there is kept under another name meanwhile.
const (
	processors      = "GOMAXPROCS="
	keptProcessors  = "ETCDLOCKER_GUARD_GOMAXPROCS="
	singleProcessor = processors + "1"
)

// onOneProcessor returns the environment of a guard that is to run its command with env.
func onOneProcessor(env []string) []string {
	return append(renamed(env, processors, keptProcessors), singleProcessor)
}

// onAllProcessors is the reverse.
func onAllProcessors(env []string) []string {
	var without []string
	for _, kv := range env {
		if kv != singleProcessor {
			without = append(without, kv)
		}
	}
	return renamed(without, keptProcessors, processors)
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
