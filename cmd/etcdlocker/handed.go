package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/endpoint"
	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/record"
)

// Names under which the command finds its locks. All but the list and the mode are about the first
// key. ETCD_LOCK_KEY and the like say the same, but are also what etcdlocker reads: without these
// names they would steer an etcdlocker that the command runs.
const (
	heldList  = "ETCDLOCK_HELD"
	heldMode  = "ETCDLOCK_HELD_MODE"
	heldSlot  = "ETCDLOCK_HELD_SLOT" // of a semaphore, else it is not there
	heldKey   = "ETCDLOCK_HELD_KEY"
	heldID    = "ETCDLOCK_HELD_ID"
	heldRev   = "ETCDLOCK_HELD_REV"
	heldLease = "ETCDLOCK_HELD_LEASE"
)

// environment is what the command may want to know of the locks, and what it needs of what is kept
// from it.
func (h *holder) environment() []string {
	key, slot := h.keys[0], heldSlot
	if h.mode > 0 {
		slot += "=" + strconv.Itoa(h.held.Slot(key))
	}
	rev := strconv.FormatInt(h.held.Token(key), 10)
	env := []string{
		heldList + "=" + h.keys.list(h.heldLock),
		heldMode + "=" + h.mode.Name(),
		slot,
		heldKey + "=" + key,
		heldID + "=" + h.id,
		heldRev + "=" + rev,
		heldLease + "=" + leaseName(h.held.Lease()),
		endpoint.Held + "=" + h.endpoint,
		"ETCD_LOCK_KEY=" + key,
		"ETCD_LOCK_ID=" + h.id,
		"ETCD_LOCK_REV=" + rev,
		"ETCD_LOCK_HOST=" + h.endpoint,
		sharedVariable, slotsVariable, whyVariable, // are about our key
	}
	if h.keepCredentials {
		env = append(env, guard.Credentials(os.Environ())...)
	}
	return env
}

// heldLock returns what the command finds of one of its locks.
func (h *holder) heldLock(key string) heldLock {
	return newHeldLock(key, h.held.Token(key), h.mode, h.held.Slot(key))
}

// input returns getenv without the key and the id that an etcdlocker has handed its command.
func input(getenv func(string) string) func(string) string {
	if key := getenv(heldKey); key == "" || getenv("ETCD_LOCK_KEY") != key {
		return getenv
	}
	return func(name string) string {
		if name == "ETCD_LOCK_KEY" || name == "ETCD_LOCK_ID" {
			return ""
		}
		return getenv(name)
	}
}

// endIfNested ends the wait if one of the locks is held by an etcdlocker whose command, or
// something that it has started, is this process: it would wait for itself. Of a semaphore it would
// wait for others as well, and they may wait for it: two commands that hold both slots and ask for
// another one each.
func (h *holder) endIfNested(ctx context.Context) {
	for _, key := range h.keys {
		l, err := line.Read(ctx, h.client, key)
		for ; isAway(err); l, err = line.Read(ctx, h.client, key) {
			select {
			case <-time.After(takeOverAgain):
			case <-ctx.Done():
				return
			}
		}
		nested := func(holder line.Holder) bool { return isBelowGuard(holder.Record) || handed(key, holder) }
		if err == nil && slices.ContainsFunc(l.Holders, nested) {
			hint := "it would wait for itself"
			if l.Slots > 0 {
				hint = "no slot is free, and two commands that have one and wait for another can wait for each other"
			}
			h.endWait(&failure{
				err:  fmt.Errorf("lock %q %w", key, errNested),
				hint: hint + ": name another key with -k, or run this part without etcdlocker",
				code: h.code(errNested),
			})
			return
		}
	}
}

// handed reports whether the environment says that this lock is held under that lease, and with
// that token, unless it is shared. In another etcd the token can be the same.
func handed(key string, holder line.Holder) bool {
	return os.Getenv(heldLease) == leaseName(holder.Lease) && lists(os.Getenv(heldList), key, holder.Token)
}

// heldAbove returns the locks that the environment says are held in the same etcd.
func (h *holder) heldAbove() []heldLock {
	if os.Getenv(endpoint.Held) != h.endpoint {
		return nil
	}
	return parseList(os.Getenv(heldList))
}

// under says in the records of the places under which locks this process runs.
func under(above []heldLock) (all []record.Under) {
	for _, one := range above {
		all = record.AddUnder(all, one.key(), one.Token)
	}
	return all
}

// leaseName is a lease as etcdctl shows it.
func leaseName(id clientv3.LeaseID) string { return strconv.FormatInt(int64(id), 16) }

// isBelowGuard reports whether a holder is an etcdlocker that waits for this process to end. A
// holder of another kind may have started this process, and not wait for it.
func isBelowGuard(holder record.Record) bool {
	const shown = 15 // of a name, in comm
	child := holder.Below()
	if child == 0 {
		return false
	}
	name, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/comm")
	return err == nil && string(name) == guard.Name[:shown]+"\n"
}
