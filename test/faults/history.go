//go:build linux

package faults

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// forever is the end of an operation whose outcome nobody knows.
const forever = time.Duration(math.MaxInt64)

// mutexModel is a mutex: what is locked can only be unlocked.
var mutexModel = porcupine.Model{
	Init: func() any { return false },
	Step: func(state, input, _ any) (bool, any) {
		locked, lock := state.(bool), input.(bool)
		return locked != lock, lock
	},
	DescribeOperation: func(input, _ any) string { return map[bool]string{true: "lock", false: "unlock"}[input.(bool)] },
}

// tokenModel is a source of tokens: each is greater than all before.
var tokenModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, _, output any) (bool, any) {
		return output.(int64) > state.(int64), output
	},
	DescribeOperation: func(_, output any) string { return fmt.Sprintf("lock -> %d", output) },
}

// counterModel is a counter: who writes a number has read the one before, unless it was refused.
// Where the outcome is unknown, it may have been written or not.
var counterModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{0} },
	Step: func(state, input, output any) []any {
		n, number := state.(int), input.(int)
		switch {
		case output == refusal:
			return []any{n}
		case output == unknown && number == n+1:
			return []any{n, number}
		case output == unknown:
			return []any{n}
		case number == n+1:
			return []any{number}
		}
		return nil
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("write %d -> %v", input, output) },
}).ToModel()

// checkWithin bounds a check, which for a history that is not linearizable can take very long.
const checkWithin = 20 * time.Second

// linearizable returns an error if a history is not that of such a thing.
func linearizable(what string, model porcupine.Model, history []porcupine.Operation) error {
	if result := porcupine.CheckOperationsTimeout(model, history, checkWithin); result != porcupine.Ok {
		return fmt.Errorf("this is no history of a %s (%s): %s", what, result, describe(model, history))
	}
	return nil
}

func describe(model porcupine.Model, history []porcupine.Operation) string {
	s := ""
	for _, op := range history {
		s += fmt.Sprintf("\n\t%d: %s, from %v to %v", op.ClientId, model.DescribeOperation(op.Input, op.Output), time.Duration(op.Call), time.Duration(op.Return))
	}
	return s
}
