//go:build linux

// Package faults breaks things on purpose and measures what a lock is worth then.
//
// A trial is one holder and two waiters for one lock, or for two that each takes together, real
// processes on a real etcd, which is one process or three. In some trials the holder shares the
// lock with another reader, or the lock has two slots, and somebody else has the other one. Each
// has a way to each member that is its own and can be broken. What runs under the lock is the
// command heart, which shows every few milliseconds that it runs. A fault hits, or two do; then it
// is checked what became of the promise:
//
//   - no two commands ran at once, but for readers and those in different slots, and none after its
//     place in line was gone;
//   - the command was dead when the holder's validity ended;
//   - a lock that could have been kept was not lost;
//   - the next in line started in time, and in turn;
//   - exit code and message are those of docs/exit-codes.md;
//   - the tokens grew, and no work on a counter that they guard was lost;
//   - no process, key, lease or control group is left, and everybody got the lock in the end.
//
// [Plan] makes a list of trials and [Run] runs them. What is random in a trial comes from its seed.
// A trial that fails prints how to run it again; the moments of other processes are not in our
// hand, so it may take some runs until it fails again.
//
// Lockers other than etcdlocker can be given the same faults: see bench/faults. Only what concerns
// every lock is measured then, and nothing is required.
package faults
