package kind

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// TestKind: the form of a transaction tells which function made it, whatever its keys are.
func TestKind(t *testing.T) {
	forms := make(map[string]string)
	for _, s := range Samples() {
		form := form(s.Txn)
		if other, taken := forms[form]; taken && other != s.Name {
			t.Errorf("%s and %s have one form: %s", s.Name, other, form)
		}
		forms[form] = s.Name
	}
	p := wire.Place{Lock: "/a/b", Key: wire.LinkedPlace("/a/b", 0x7a, 12), Lease: 0x7a, ID: "x", Record: `{"v":1}`, Linked: true}
	sits := wire.Place{Lock: "/a/b", Key: wire.SlotPlace("/a/b", 12, 0x7a, 12), Lease: 0x7a, ID: "x", Record: `{"v":1}`, Linked: true, Mode: mode.OfSlots(12)}
	for _, txn := range []*pb.TxnRequest{
		wire.StateRead(append(wire.StateOps("/a/b", p.Key, "/a/b"), wire.StateOps("l", wire.LinkedPlace("l", 1, 1), "")...)),
		wire.StateRead(append(wire.StateOps("/a/b", p.Key, ""), wire.StateOps(sits.At(7).LockKey(), sits.Key, p.Key)...)),
	} {
		if got := Of(txn); got != "StateRead" {
			t.Errorf("a read of two states is taken for %q: %v", got, txn)
		}
	}
	for _, keys := range [][]string{{wire.Tail("/a/b")}, {sits.At(7).LockKey()}, {p.Key, sits.Key}, {p.Key, sits.Key, "/a/b"}} {
		if got := Of(wire.KeyRead(keys...)); got != "KeyRead" {
			t.Errorf("a read of %q is taken for %q", keys, got)
		}
	}
	together := new(pb.TxnRequest)
	for _, one := range []*pb.TxnRequest{wire.ProbeRead("l"), wire.KeyRead("/a/b", p.Key), wire.ProbeRead("/a/b")} {
		together.Success = append(together.Success, one.Success...)
	}
	if got := Of(together); got != "KeyRead" {
		t.Errorf("reads that are sent together are taken for %q", got)
	}
	for name, txn := range map[string]*pb.TxnRequest{
		"Acquire":     wire.Acquire(p),
		"Claim":       wire.Claim(p, 99),
		"Release":     wire.Release(p, 99, true),
		"RemoveKey":   wire.RemoveKey("/a/b", 99),
		"Remove":      wire.Remove(p, 99, false),
		"SlotTurn":    wire.SlotTurn(sits),
		"KindRead":    wire.KindRead("/a/b"),
		"HistoryRead": wire.HistoryRead("/a/b", wire.LinkedPlace("/a/b", 3, 4), 5),
		"":            {Success: wire.ProbeRead("/a/b").Success, Failure: wire.ProbeRead("/a/b").Success},
	} {
		if got := Of(txn); got != name {
			t.Errorf("%q is taken for %q", name, got)
		}
	}
}

// TestKindsAreDocumented: each transaction is a row, or a word, of docs/protocol.md.
func TestKindsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Samples() {
		if !strings.Contains(string(doc), "`"+s.Name+"`") {
			t.Errorf("docs/protocol.md does not say what %s is", s.Name)
		}
	}
}

// TestFewOperations: docs/protocol.md says how many operations etcd has to take in a transaction,
// by what can be divided no more.
func TestFewOperations(t *testing.T) {
	most := map[bool]int{}
	for _, s := range Samples() {
		switch s.Name {
		case "Batch", "AcquireAllIfFree":
		default:
			ofSlots := strings.Contains(s.Txn.String(), "k/=3")
			most[ofSlots] = max(most[ofSlots], wire.Ops(s.Txn))
		}
	}
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("needs more than %d, for slots %d", most[false], most[true])
	if !strings.Contains(string(doc), said) {
		t.Errorf("docs/protocol.md does not say that nothing else %s", said)
	}
}

// TestClasses: docs/protocol.md says of each transaction that writes to which class it belongs.
func TestClasses(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]string{}
	for _, class := range []string{"ask", "fence", "clean"} {
		_, row, found := strings.Cut(string(doc), "\n| "+class+" | ")
		if !found {
			t.Fatalf("docs/protocol.md does not say what is of the class %q", class)
		}
		row, _, _ = strings.Cut(row, "\n")
		for i, name := range strings.Split(row, "`") {
			if i%2 == 0 {
				continue
			}
			if other := classes[name]; other != "" {
				t.Errorf("%s is of two classes: %s and %s", name, other, class)
			}
			classes[name] = class
		}
	}
	for _, s := range Samples() {
		want := "clean"
		switch r := (message.Request{Name: message.Name(s.Name)}); {
		case strings.HasSuffix(s.Name, "Read"):
			want = ""
		case r.Joins(), r.Claims(), !deletes(s.Txn):
			want = "ask"
		}
		if got := classes[s.Name]; got != want {
			t.Errorf("%s is of the class %q, not %q", s.Name, want, got)
		}
	}
}

// TestRefusals: docs/protocol.md says of each transaction that can be refused with what it answers.
func TestRefusals(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[[2]string]bool{} // a name, and a bullet that it is in
	for _, bullet := range []string{"with `K`, or the slot", "with the same", "with nothing"} {
		_, names, found := strings.Cut(string(doc), "\n- "+bullet)
		if !found {
			t.Fatalf("docs/protocol.md does not say what answers %s", bullet)
		}
		names, _, _ = strings.Cut(names, "\n\n")
		names, _, _ = strings.Cut(names, "\n- ")
		for i, name := range strings.Split(names, "`") {
			if i%2 > 0 && name != "K" {
				said[[2]string{name, bullet}] = true
			}
		}
	}
	has := map[[2]string]bool{}
	for _, s := range Samples() {
		bullet := "with `K`, or the slot"
		switch {
		case len(s.Txn.Compare) == 0 || s.Name == "AcquireAllIfFree":
			continue
		case len(s.Txn.Failure) == 0:
			bullet = "with nothing"
		case s.Txn.Failure[0].GetRequestTxn() != nil:
			bullet = "with the same"
		}
		has[[2]string{s.Name, bullet}] = true
	}
	if !maps.Equal(said, has) {
		t.Errorf("docs/protocol.md says %v, not %v", said, has)
	}
}

// deletes reports whether a transaction deletes something, as all do that clean up.
func deletes(txn *pb.TxnRequest) bool {
	return slices.ContainsFunc(txn.Success, func(op *pb.RequestOp) bool {
		return op.GetRequestDeleteRange() != nil || op.GetRequestTxn() != nil && deletes(op.GetRequestTxn())
	})
}
