//go:build linux

package faults

import (
	"context"
	"slices"
	"testing"
)

// The passwords in a world with users: root's, and that of each player's user. Etcd checks them at
// its usual cost.
const (
	rootPassword = "root-password"
	password     = "pass"
)

// denied is what a holder says that etcd lets in no more.
const denied = "lets this user no more"

// userFaults are those of an etcd that has users.
func userFaults() []Fault {
	kept := append(named(networkFaults(), "network silent, not for long"),
		Fault{Name: "etcd forgets all tokens", what: "the users", outcome: keeps, hit: forgetsTokens})
	killed := named(memberFaults(), "etcd killed and restarted")
	lost := append(named(networkFaults(), "network silent"),
		Fault{Name: "the holder's password changed", what: "the users", byHand: true, outcome: loses, code: 2, says: unrenewed, hit: changesPassword},
		Fault{Name: "the holder's rights taken away", what: "the users", byHand: true, outcome: loses, code: 2, says: denied, hit: takesRights})
	all := slices.Concat(
		with(kept, func(f *Fault) { f.row = "users with passwords" }),
		with(killed, func(f *Fault) { f.row = "users with passwords, etcd killed and restarted" }),
		with(lost, func(f *Fault) { f.row = "users with passwords, the lock lost" }),
	)
	return with(all, func(f *Fault) {
		f.need.users = true
		if f.prepare == nil {
			f.prepare = hasTime
		}
		if f.what == "the users" {
			f.need.alone = true
		} else {
			f.Name += "; users with passwords"
		}
	})
}

// named returns the faults that have one of the names.
func named(faults []Fault, names ...string) []Fault {
	return slices.DeleteFunc(faults, func(f Fault) bool { return !slices.Contains(names, f.Name) })
}

// players are the names of a trial's players. In a world with users each is a user of its own.
var players = []string{"holder", "first", "second", "reader"}

// addUsers adds the users, and lets nobody else in from then on.
func (w *world) addUsers(t testing.TB) {
	for _, name := range players {
		w.access.AddUser(t, name, password, keys, outerKey(keys))
	}
	w.access.EnableAuth(t, rootPassword)
}

// login returns a variable by which a locker of a player's logs in.
func login(name string) string { return "ETCDCTL_USER=" + name + ":" + password }

// forgetsTokens gives every user the password that it has. Then etcd knows its tokens no more.
func forgetsTokens(t *trial) func() {
	for _, name := range players {
		t.operate(t.setPassword(name, password))
	}
	return nil
}

func changesPassword(t *trial) func() {
	t.operate(t.setPassword(players[0], "another"))
	return t.restores(t.setPassword(players[0], password))
}

func (t *trial) setPassword(user, to string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := t.client.UserChangePassword(ctx, user, to)
		return err
	}
}

// takesRights takes all rights from the holder's user.
func takesRights(t *trial) func() {
	user := players[0]
	t.operate(func(ctx context.Context) error {
		_, err := t.client.UserRevokeRole(ctx, user, user)
		return err
	})
	return t.restores(func(ctx context.Context) error {
		_, err := t.client.UserGrantRole(ctx, user, user)
		return err
	})
}

// restores makes users as they were: others need them after this trial.
func (t *trial) restores(do func(context.Context) error) func() {
	return func() {
		if !t.await(settleWithin, func() bool { return t.asking(do) == nil }) {
			t.problem("the users could not be made as they were")
		}
	}
}
