package model

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

// A leftOut is a mutation: one comparison or one operation of a transaction is left out.
type leftOut struct {
	name message.Name
	path []step // from the transaction to it, through those it is nested in
	what string
}

// A step leads into a transaction.
type step struct{ part, index int }

// The parts of a transaction.
const (
	comparisons = iota
	then
	otherwise
)

func (l leftOut) String() string {
	var b strings.Builder
	b.WriteString(string(l.name))
	for _, s := range l.path {
		fmt.Fprintf(&b, " %s %d", [...]string{"if", "then", "else"}[s.part], s.index)
	}
	return b.String() + ": " + l.what
}

// apply leaves the thing out of a transaction, if it is in there. In place of an operation a key
// that does not exist is read, so the answers to the others stay where they are.
func (l leftOut) apply(name message.Name, req *pb.TxnRequest) *pb.TxnRequest {
	if name != l.name {
		return req
	}
	req = proto.Clone(req).(*pb.TxnRequest)
	at := req
	for i, s := range l.path {
		last := i == len(l.path)-1
		switch ops := operations(at, s.part); {
		case s.part == comparisons:
			if s.index < len(at.Compare) && compared(at.Compare[s.index]) == l.what {
				at.Compare = slices.Delete(at.Compare, s.index, s.index+1)
			}
		case s.index >= len(ops):
			return req
		case !last:
			if at = ops[s.index].GetRequestTxn(); at == nil {
				return req
			}
		case done(ops[s.index]) == l.what:
			ops[s.index] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("absent")}}}
		}
	}
	return req
}

func operations(req *pb.TxnRequest, part int) []*pb.RequestOp {
	if part == then {
		return req.Success
	}
	return req.Failure
}

// compared and done say what a comparison and an operation are about.
func compared(c *pb.Compare) string {
	return fmt.Sprintf("%v of %s %v", c.Target, keys(c.Key, c.RangeEnd), c.Result)
}

func done(op *pb.RequestOp) string {
	switch {
	case op.GetRequestRange() != nil:
		return "get " + keys(op.GetRequestRange().Key, op.GetRequestRange().RangeEnd)
	case op.GetRequestPut() != nil:
		return "put " + keys(op.GetRequestPut().Key, nil)
	case op.GetRequestDeleteRange() != nil:
		return "delete " + keys(op.GetRequestDeleteRange().Key, nil)
	}
	return "a transaction"
}

// ofSlots matches the part of the name of a semaphore's key that says how many slots there are.
var ofSlots = regexp.MustCompile(`^k/=[0-9]+`)

// keys says which key, or which keys, an operation is about.
func keys(key, end []byte) string {
	key, end = ofSlots.ReplaceAll(key, []byte("k/=n")), ofSlots.ReplaceAll(end, []byte("k/=n"))
	switch name := string(key); {
	case name == lock:
		return "K"
	case name == wire.Tail(lock):
		return "the tail"
	case wire.ReservedEnd(name) != "":
		return "the note"
	case strings.Contains(name, "/=n#") && len(end) == 0:
		return "a slot"
	case len(end) == 0:
		return "a place"
	case strings.HasSuffix(name, "/=n#") && strings.HasSuffix(string(end), "/=n$"):
		return "the slots"
	case strings.HasSuffix(name, "/=n."):
		return "the places of slots"
	case strings.HasSuffix(string(end), "/=n#"):
		return "all before the slots"
	case strings.HasSuffix(name, "/=n/"):
		return "all behind the slots"
	case strings.HasSuffix(name, "/="):
		return "all slots"
	case strings.HasSuffix(string(end), "~s") && strings.HasSuffix(name, "~"):
		return "all with ~ that is not shared"
	case strings.HasSuffix(string(end), "~s"):
		return "all before ~s"
	case strings.HasSuffix(name, "~s"):
		return "all that is shared"
	case strings.HasSuffix(string(end), "0") && strings.HasSuffix(name, "/"):
		return "all below K"
	case strings.HasSuffix(name, "/"):
		return "all before ~"
	case strings.HasSuffix(name, "~"):
		return "all with ~"
	}
	return "all behind ~"
}

// mutations returns one for each comparison and each operation of each transaction that a machine
// asks for.
func mutations() (all []leftOut) {
	seen := make(map[string]bool)
	add := func(l leftOut) {
		if !seen[l.String()] {
			seen[l.String()] = true
			all = append(all, l)
		}
	}
	var walk func(name message.Name, path []step, req *pb.TxnRequest)
	walk = func(name message.Name, path []step, req *pb.TxnRequest) {
		at := func(part, index int) []step { return append(slices.Clone(path), step{part, index}) }
		for i, c := range req.Compare {
			add(leftOut{name, at(comparisons, i), compared(c)})
		}
		for _, part := range []int{then, otherwise} {
			for i, op := range operations(req, part) {
				add(leftOut{name, at(part, i), done(op)})
				if inner := op.GetRequestTxn(); inner != nil {
					walk(name, at(part, i), inner)
				}
			}
		}
	}
	for _, s := range kind.Samples() {
		if drivers[s.Name] == "" {
			walk(message.Name(s.Name), nil, s.Txn)
		}
	}
	return all
}

// drivers are transactions for which no machine asks, each with the reason that it need not be
// mutated.
var drivers = map[string]string{
	"Force":            "no machine asks for it: TestForceHitsNobodyElse",
	"ProbeRead":        "nothing of its answer matters but that there is one: TestProbeReadsNothing",
	"AcquireAllIfFree": "it is the requests that are mutated by themselves, one behind the other: TestAcquireAllIsAllOfEach",
	"Batch":            "it is the requests that are mutated by themselves, each nested: TestBatchNestsEach",
}

// plans are the runs in which mutations are looked for, one after the other: small casts, and few
// kinds of faults that go together.
func plans() (all []Run) {
	for _, kinds := range [][]Kind{
		{lostAnswer}, {cancel}, {cancel, lostAnswer}, {lostAnswer, force}, {lostAnswer, operator}, {expiry, crash},
		{slowAnswer, cancel}, {force, cancel}, {stranger, cancel}, {refusal, cancel}, {lostAnswer, expiry, cancel},
		{lostAnswer, slowAnswer, cancel, operator, force}, {operator, crash}, {operator, cancel}, {refusal, lostAnswer}, {breaks}, {breaks, cancel}, nil,
		{pauses}, {notes}, {notes, cancel},
	} {
		for _, cast := range []Cast{
			{Private: 2, Turns: 2}, {Private: 3, Turns: 2}, {Session: 2, Turns: 2}, {Session: 4, Turns: 2}, {Private: 1, Session: 2, Turns: 2},
			{Private: 2, Mutexes: 1, Turns: 2}, {Session: 2, Mutexes: 1}, {Private: 1, Unlinked: 1, Turns: 2}, {Session: 2, Unlinked: 1},
			{Private: 2, Try: 1, Lone: true, Turns: 2}, {Session: 1, Mutexes: 2, Turns: 3},
			{Private: 2, Sharing: 1, Turns: 2}, {Private: 2, Sharing: 2, Turns: 2}, {Private: 1, Session: 1, Together: 2, Turns: 2},
			{Private: 1, Sharing: 1, Mutexes: 1, Turns: 2}, {Private: 3, Sharing: 1, Turns: 2}, {Private: 1, Sharing: 1, TryShare: 1, Unlinked: 1},
			{Private: 4, Sharing: 1}, {Private: 5, Sharing: 2},
			{Slots: 3, Of: 1, Turns: 3}, {Slots: 3, Turns: 2}, {Sits: 3, Turns: 2}, {Sits: 2, Of: 1, Turns: 2}, {Slots: 1, Sits: 2, Of: 1},
			{Slots: 2, Of: 1, Mutexes: 1, Turns: 2}, {Slots: 2, Private: 1, Of: 1, Turns: 2}, {Slots: 1, Others: 1, Turns: 2},
			{Slots: 3, TrySlots: 1}, {Sits: 2, Of: 1, Session: 1}, {Slots: 2, Sharing: 1, Unlinked: 1, Of: 1}, {Slots: 5, Mutexes: 1},
			{Slots: 3, Of: 1, Mutexes: 1}, {Slots: 3, Of: 1, Sharing: 2}, {Slots: 2, TrySlots: 1, Of: 1, Turns: 2},
			{Slots: 1, TrySlots: 1, Try: 1, TryShare: 1, Mutexes: 1}, {Slots: 1, Of: 1, TrySlots: 2, Others: 1},
			{Slots: 1, Others: 1, Private: 1, Sharing: 1}, {Slots: 2, Private: 1, Mutexes: 1}, {Private: 3, Sharing: 1, Mutexes: 1},
		} {
			all = append(all, Run{Cast: cast, Faults: 3, Kinds: kinds, Often: 4})
		}
	}
	return all
}

// belowTail is why it does not matter whether there is a tail.
const belowTail = "while the place that the tail names is there, the next comparison fails, at a higher price: TestTailNamesKeysBelow"

// behindTilde is why it does not matter whether something is behind the linked places.
const behindTilde = "no key there is a place: TestNothingBehindTheLinked"

// equivalent are the mutations after which all that is checked holds, each with the reason.
var equivalent = map[string]string{
	"Acquire if 1: CREATE of the tail EQUAL":               belowTail,
	"Leave then 1 then 0 if 0: CREATE of a place LESS":     "where the tail names a place no linked one is newer: mustBeInOrder",
	"Share if 2: CREATE of the tail EQUAL":                 belowTail,
	"ShareIfFree if 2: CREATE of the tail EQUAL":           belowTail,
	"ClaimBehindHolder if 3: CREATE of all behind ~ EQUAL": behindTilde,
	"ShareBehindHolder if 3: CREATE of all behind ~ EQUAL": behindTilde,
	"Pass if 4: CREATE of all behind ~ EQUAL":              behindTilde,
	"LineRead then 4: get all behind ~":                    behindTilde,
	"Pass if 1: MOD of a place EQUAL":                      "where K is the holder's so is its place, unless an operator has taken that: mustStandTogether",
	"LineRead then 1: get a place":                         "no machine looks at it: mustNotMatter",
	"NewestRead then 1: get a place":                       "no machine looks at it: mustNotMatter",
	"SlotLineRead then 1: get a place":                     "no machine looks at it: mustNotMatter",
	"SlotNewestRead then 1: get a place":                   "no machine looks at it: mustNotMatter",
	"SharedLineRead then 1: get a place":                   "no machine looks at it: mustNotMatter",
	"SharedNewestRead then 1: get a place":                 "no machine looks at it: mustNotMatter",
	"BusyRead then 1: get all below K":                     "no machine looks at it, it is for the user: mustNotMatter",
	"BusyRead then 3: get all with ~":                      "no machine looks at it, it is for the user: mustNotMatter",
	"BusyRead then 5: get the slots":                       "no machine looks at it, it is for the user: mustNotMatter",
}

// TestMutationsAreCaught: what a transaction compares, reads and writes is needed, but for what is
// listed as equivalent.
func TestMutationsAreCaught(t *testing.T) {
	all := mutations()
	left, most, latest := maps.Clone(equivalent), 0, ""
	for name := range seldom {
		left[name] = ""
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	work := make(chan leftOut)
	for range 2 {
		wait.Go(func() {
			for m := range work {
				n, err := catch(m, 40000)
				mu.Lock()
				if n >= most {
					most, latest = n, m.String()
				}
				if err == nil {
					t.Errorf("%s is not caught", m)
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range all {
		delete(left, m.String())
		if _, ok := equivalent[m.String()]; !ok {
			work <- m
		}
	}
	close(work)
	wait.Wait()
	t.Logf("%d mutations, %d of them equivalent, the others caught after %d runs at most: %s", len(all), len(equivalent), most, latest)
	if 10*len(equivalent) > len(all) {
		t.Errorf("of %d mutations %d are equivalent", len(all), len(equivalent))
	}
	for name := range left {
		t.Errorf("no mutation is called %q", name)
	}
}

// TestEquivalentMutations: what is listed as equivalent is not caught by many runs.
func TestEquivalentMutations(t *testing.T) {
	runs := len(plans())
	if *everything {
		runs = 100000
	}
	for _, m := range mutations() {
		if _, ok := equivalent[m.String()]; !ok {
			continue
		}
		if n, err := catch(m, runs); err != nil {
			t.Errorf("%s is caught, by run %d: %v", m, n, err)
		}
	}
}

// TestReasonsAreHeld: each reason that a mutation need not be caught ends with the name of what
// holds it.
func TestReasonsAreHeld(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{".", "../../internal/wire"} {
		names, _ := filepath.Glob(dir + "/*.go")
		for _, name := range names {
			file, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(file)
		}
	}
	for _, reasons := range []map[string]string{equivalent, drivers} {
		for name, reason := range reasons {
			holds := regexp.MustCompile(`(?m)^func (\(.*\) )?` + reason[strings.LastIndex(reason, " ")+1:] + `\(`)
			if !holds.MatchString(code.String()) {
				t.Errorf("%s: nothing holds that %q", name, reason)
			}
		}
	}
}

// TestNothingBehindTheLinked: no key below K/ that comes after the linked places in the order of
// names is a place, whatever its lease.
func TestNothingBehindTheLinked(t *testing.T) {
	_, behind := wire.LinkedRange(lock)
	for first := int(behind[len(behind)-1]); first <= 255; first++ {
		for _, lease := range []int64{1, -1, 0x1f, math.MinInt64, math.MaxInt64} {
			for _, rest := range []string{"", "1", "1f", "-1", "1f-1", "~1f-1", strconv.FormatInt(lease, 16)} {
				kv := &mvccpb.KeyValue{Key: []byte(wire.Prefix(lock) + string([]byte{byte(first)}) + rest), Lease: lease}
				if wire.IsPlace(lock, kv) {
					t.Errorf("%q is a place", kv.Key)
				}
			}
		}
	}
}

// TestTailNamesKeysBelow: a tail names nothing but keys below K/.
func TestTailNamesKeysBelow(t *testing.T) {
	for _, value := range []string{"1 1f-1 me", "1 -1f-2 ", "1 /x-1 me", "1 1f me", "2 1f-1 me", ""} {
		if link, ok := wire.ParseLink(lock, value); ok && !strings.HasPrefix(link.Place, wire.Prefix(lock)) {
			t.Errorf("%q names %q", value, link.Place)
		}
	}
}

// concerns reports whether a mutation may matter to a run: what is of those who share the lock, or
// have slots, matters only where they are, and what is of others is seen without slots. What is of
// pauses and notes matters only where these are.
func (l leftOut) concerns(r Run) bool {
	c := r.Cast
	sit := c.Slots+c.TrySlots+c.Sits+c.Others > 0
	if len(r.Kinds) > 0 && (l.name == "Pause" || l.name == "Resume") != (r.Kinds[0] == pauses) {
		return false
	}
	if len(r.Kinds) > 0 && strings.HasSuffix(string(l.name), "Since") != (r.Kinds[0] == notes) {
		return false
	}
	switch name := l.String(); {
	case strings.HasPrefix(name, "Share"), strings.Contains(name, "shared"), l.name == "NoteSince" && strings.Contains(name, "a place"):
		return c.Sharing+c.TryShare+c.Together > 0
	case strings.Contains(name, "lot"), strings.Contains(name, "VALUE of a place"), l.name == message.ReadKind:
		return sit
	}
	return !sit
}

// seldom are mutations that few runs of few plans catch, most of them of what a session removes
// when somebody has deleted a place. Each has one such plan, and is looked for with that alone.
var seldom = map[string]Run{
	"KeyRead then 0: get the tail":                    {Cast: Cast{Session: 2, Unlinked: 1}, Kinds: []Kind{force, cancel}},
	"RemoveTail then 0: delete the tail":              {Cast: Cast{Session: 2, Unlinked: 1}, Kinds: []Kind{force, cancel}},
	"RemoveKey if 0: MOD of K EQUAL":                  {Cast: Cast{Session: 4, Turns: 2}, Kinds: []Kind{force, cancel}},
	"RemoveKey if 0: MOD of a slot EQUAL":             {Cast: Cast{Sits: 2, Of: 1, Turns: 2}, Kinds: []Kind{lostAnswer, force}},
	"Pass if 4: CREATE of all behind the slots EQUAL": {Cast: Cast{Sits: 2, Of: 1, Session: 1}, Kinds: []Kind{breaks, cancel}},
	"SlotIfFree else 0 then 1: get a slot":            {Cast: Cast{Slots: 1, Sits: 2, Of: 1}, Kinds: []Kind{lostAnswer, force}},
	"SlotBehindHolder if 0: MOD of a place EQUAL": {Cast: Cast{Slots: 3, Of: 1, Turns: 3},
		Kinds: []Kind{lostAnswer, slowAnswer, cancel, operator, force}},
}

// catch makes runs with a mutation until one of them breaks.
func catch(m leftOut, runs int) (n int, err error) {
	plans := slices.DeleteFunc(plans(), func(r Run) bool { return !m.concerns(r) })
	if r, is := seldom[m.String()]; is {
		r.Faults, r.Often = 3, 4
		plans = []Run{r}
	}
	for ; n < runs; n++ {
		r := plans[n%len(plans)]
		r.Seed, r.Mutate = uint64(n), m.apply
		if n/len(plans)%2 > 0 { // the faults come later
			r.Often *= 4
		}
		if o := r.Go(); o.Err != nil {
			return n, o.Err
		}
	}
	return n, nil
}

// TestForceHitsNobodyElse: what takes the lock away compares both keys of the holder, and deletes
// these two.
func TestForceHitsNobodyElse(t *testing.T) {
	for _, keys := range [][]string{{lock, wire.LinkedPlace(lock, 1, 1)}, {wire.SharedPlace(lock, 1, 1), wire.SharedPlace(lock, 1, 1)}} {
		for _, old := range []string{"", keys[0], keys[1]} {
			etcd := smalletcd.New(1)
			mods := make(map[string]int64)
			for _, key := range append([]string{"other"}, keys...) {
				resp, err := etcd.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}}})
				if err != nil {
					t.Fatal(err)
				}
				mods[key] = resp.Header.Revision
			}
			if old != "" {
				mods[old]--
			}
			resp, err := etcd.Txn(wire.Force(keys[0], keys[1], mods[keys[0]], mods[keys[1]]))
			left, _ := etcd.Txn(wire.KeyRead(append([]string{"other"}, keys...)...))
			if err != nil || resp.Succeeded != (old == "") || wire.Got(left, 0) == nil {
				t.Errorf("%q, %q is old: %v, %v", keys, old, resp, err)
			}
			for i := range keys {
				if is := wire.Got(left, i+1) != nil; is != (old != "") {
					t.Errorf("%q, %q is old: %s is there: %v", keys, old, keys[i], is)
				}
				if old != "" && i < len(resp.Responses) && wire.Got(resp, i) == nil {
					t.Errorf("%q, %q is old: the answer does not show %s", keys, old, keys[i])
				}
			}
		}
	}
}
