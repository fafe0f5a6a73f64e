// Package place describes a place in line: the key that each contender for a lock K keeps under K/,
// bound to its lease, and the record in it that says who waits there; and the tail, which names the newest place.
package place

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// version is that of the record's form. A reader takes what it knows of newer ones.
const version = 1

// A Record says who stands at a place. The zero value of a field means that it is not known.
type Record struct {
	Version int       `json:"v"`
	ID      string    `json:"id"`
	Host    string    `json:"host,omitempty"`
	PID     int       `json:"pid,omitempty"`
	Boot    string    `json:"boot,omitempty"`    // the boot id of the host's kernel
	PIDNS   string    `json:"pidns,omitempty"`   // the pid namespace that PID belongs to
	Start   uint64    `json:"start,omitempty"`   // when the process started, in clock ticks since boot
	Command string    `json:"command,omitempty"` // base name only: arguments can be secrets
	Since   time.Time `json:"since,omitzero"`
}

// Self returns the record of the running process, all but Since.
func Self(id string) Record {
	r := Record{
		Version: version,
		ID:      id,
		PID:     os.Getpid(),
	}
	if len(os.Args) > 0 {
		r.Command = filepath.Base(os.Args[0])
	}
	us := process()
	r.Host, r.Boot, r.PIDNS, r.Start = us.Host, us.Boot, us.PIDNS, us.Start
	return r
}

// process is what there is to say of the running process, whatever lock it wants. It does not change, and takes a while to find out.
var process = sync.OnceValue(func() (r Record) {
	r.Host, _ = os.Hostname()
	r.readProc()
	return r
})

func (r *Record) readProc() {
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		r.Boot = strings.TrimSpace(string(boot))
	}
	r.PIDNS, _ = os.Readlink("/proc/self/ns/pid")
	_, r.Start, _ = stat("self")
}

// stat returns the parent of a process, and when the process started.
func stat(process string) (parent int, start uint64, ok bool) {
	content, err := os.ReadFile("/proc/" + process + "/stat")
	if err != nil {
		return 0, 0, false
	}
	return parseStat(string(content))
}

func parseStat(content string) (parent int, start uint64, ok bool) {
	// The name in parentheses may hold blanks and parentheses; 20 fields follow it up to the start time.
	fields := strings.Fields(content[strings.LastIndexByte(content, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	return parent, start, err == nil && err2 == nil
}

// Below returns the child of the record's process from which this one descends, 0 if it does not,
// or that cannot be seen.
func (r Record) Below() (child int) {
	us := process()
	if r.PID <= 0 || r.Start == 0 || r.Boot != us.Boot || r.PIDNS != us.PIDNS {
		return 0
	}
	for pid := os.Getpid(); pid > 0; {
		parent, _, ok := stat(strconv.Itoa(pid))
		if !ok {
			return 0
		}
		if parent == r.PID {
			if _, start, ok := stat(strconv.Itoa(parent)); ok && start == r.Start {
				return pid
			}
			return 0
		}
		pid = parent
	}
	return 0
}

// Marshal returns the record as one line of JSON.
func (r Record) Marshal() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and a time of this era always marshal
	}
	return string(b)
}

// Stamp returns a function that does what Marshal does, with the present time as Since, for much less.
func (r Record) Stamp() func() string {
	r.Since = time.Time{}
	head := strings.TrimSuffix(r.Marshal(), "}") + `,"since":"`
	return func() string {
		return string(append(time.Now().UTC().AppendFormat([]byte(head), time.RFC3339Nano), `"}`...))
	}
}

// Parse reads a record. Etcd's own Mutex writes an empty value: that is an error here, and no reason to
// doubt the place.
func Parse(value []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return Record{}, fmt.Errorf("no record of a place in line: %w", err)
	}
	if r.Version < 1 {
		return Record{}, fmt.Errorf("no record of a place in line: version %d", r.Version)
	}
	return r, nil
}

// Prefix is what all places in line for a lock start with.
func Prefix(lock string) string { return lock + "/" }

// linked is what the names of the places that are on the tail's chain begin with. It is greater than any hex digit: the places
// of strangers come before it.
const linked = "~"

// Key is the n-th place that a lease takes in line for a lock. Whoever writes it anew behind another one swaps the tail.
func Key(lock string, lease clientv3.LeaseID, n int64) string {
	return Prefix(lock) + linked + name(lease, n)
}

// Unlinked is the same for who may not write the tail. It looks like a stranger's place to those who do.
func Unlinked(lock string, lease clientv3.LeaseID, n int64) string {
	return Prefix(lock) + name(lease, n)
}

func name(lease clientv3.LeaseID, n int64) string {
	return strconv.FormatInt(int64(lease), 16) + "-" + strconv.FormatInt(n, 10)
}

// Linked returns the range of keys, from one up to another, in which all linked places are and no stranger's: whether there are any
// strangers can be found out without going through ours.
func Linked(lock string) (from, to string) {
	return Prefix(lock) + linked, Prefix(lock) + string(linked[0]+1)
}

// Is reports whether a key below K/ is a place in line for K: its name is the hex of its own lease, as
// etcd's Mutex writes it, or that with a number behind it, as Unlinked and (with a ~ before it) Key do. Anything else is no business of
// this lock's (a/2024-10 is a lock of its own).
func Is(lock string, kv *mvccpb.KeyValue) bool {
	name, ok := strings.CutPrefix(string(kv.Key), Prefix(lock))
	if !ok || kv.Lease == 0 {
		return false
	}
	name, ours := strings.CutPrefix(name, linked)
	rest, ok := strings.CutPrefix(name, strconv.FormatInt(kv.Lease, 16))
	if !ok || rest == "" {
		return ok && !ours
	}
	n, ok := strings.CutPrefix(rest, "-")
	if !ok {
		return false
	}
	_, err := strconv.ParseUint(n, 10, 64)
	return err == nil
}

// named matches what Is may be true of, whatever the lease is.
var named = regexp.MustCompile(`^~?-?[0-9a-f]+(-[0-9]+)?$`)

// Named returns those of the keys below K/ that have the name of a place, newest first. Whether it
// is one their lease shows, which etcd 3.7 does not tell with the names alone.
func Named(lock string, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	var places []*mvccpb.KeyValue
	for _, kv := range kvs {
		if name, ok := strings.CutPrefix(string(kv.Key), Prefix(lock)); ok && named.MatchString(name) {
			places = append(places, kv)
		}
	}
	slices.SortFunc(places, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(b.CreateRevision, a.CreateRevision) })
	return places
}

// A Line is who holds a lock and who waits for it, as of one revision.
type Line struct {
	Held   bool               // K exists
	Token  int64              // its ModRevision
	Lease  clientv3.LeaseID   // that it is bound to
	Holder string             // its value as it is shown
	Record Record             // of the holder, if it is one of ours
	Places []*mvccpb.KeyValue // oldest first, the holder's among them
	More   bool               // there may be others
}

// mostPlaces is how many places of one kind are read. Keys of other locks, below K/ as well, count
// among the strangers'.
const mostPlaces = 1000

// mostStrangers is how many keys that have the name of a stranger's place are looked at: they may
// have values of any size.
const mostStrangers = 64

// Read returns the line for a lock, with one linearizable read if no stranger seems to be in it,
// else with two. It reads none of the values below K/ but those of keys that have the name of a
// place.
func Read(ctx context.Context, client *clientv3.Client, lock string) (Line, error) {
	from, to := Linked(lock)
	resp, err := client.Txn(ctx).Then(
		clientv3.OpGet(lock),
		clientv3.OpGet(from, clientv3.WithRange(to), clientv3.WithLimit(mostPlaces)),
		clientv3.OpGet(Prefix(lock), clientv3.WithRange(from), clientv3.WithLimit(mostPlaces), clientv3.WithKeysOnly()),
	).Commit()
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	ours, others := resp.Responses[1].GetResponseRange(), resp.Responses[2].GetResponseRange()
	line := Line{More: ours.More || others.More}
	names := Named(lock, others.Kvs)
	if len(names) > mostStrangers {
		names, line.More = names[len(names)-mostStrangers:], true
	}
	strangers, err := whole(ctx, client, names)
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	line.Places = Filter(lock, append(ours.Kvs, strangers...))
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		line.Held, line.Token, line.Holder = true, kv.ModRevision, Shown(kv.Value)
		line.Lease = clientv3.LeaseID(kv.Lease)
		for _, p := range line.Places {
			if p.ModRevision == kv.ModRevision {
				line.Record, _ = Parse(p.Value)
			}
		}
	}
	return line, nil
}

// whole reads keys of which the names are known, and leaves out those that have gone.
func whole(ctx context.Context, client *clientv3.Client, names []*mvccpb.KeyValue) (kvs []*mvccpb.KeyValue, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	var gets []clientv3.Op
	for _, kv := range names {
		gets = append(gets, clientv3.OpGet(string(kv.Key)))
	}
	resp, err := client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return nil, err
	}
	for _, r := range resp.Responses {
		kvs = append(kvs, r.GetResponseRange().Kvs...)
	}
	return kvs, nil
}

// Shown returns the value of K as it is shown to people. Anybody may have put anything there: what
// is longer than an id may be is cut off.
func Shown(value []byte) string {
	const most = 256
	if len(value) <= most {
		return string(value)
	}
	end := most
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return string(value[:end]) + "..."
}

// Filter returns the places in line for a lock among keys below K/, oldest first.
func Filter(lock string, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	var places []*mvccpb.KeyValue
	for _, kv := range kvs {
		if Is(lock, kv) {
			places = append(places, kv)
		}
	}
	slices.SortFunc(places, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	return places
}

// Ahead returns how many places, the holder's among them, are before that of a process of this host; -1 if it has none.
func (l Line) Ahead(pid int) int {
	self := process()
	for i, kv := range l.Places {
		if r, err := Parse(kv.Value); err == nil && r.PID == pid && r.Boot == self.Boot && r.PIDNS == self.PIDNS {
			return i
		}
	}
	return -1
}
