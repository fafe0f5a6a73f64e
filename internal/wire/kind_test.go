package wire

import (
	"os"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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
	p := Place{Lock: "/a/b", Key: LinkedPlace("/a/b", 0x7a, 12), Lease: 0x7a, ID: "x", Record: `{"v":1}`, Linked: true}
	for name, txn := range map[string]*pb.TxnRequest{
		"Acquire":     Acquire(p),
		"Claim":       Claim(p, 99),
		"Release":     Release(p, 99, true),
		"RemoveKey":   RemoveKey("/a/b", 99),
		"Remove":      Remove(p, 99, false),
		"HistoryRead": HistoryRead("/a/b", LinkedPlace("/a/b", 3, 4), 5),
		"":            {Success: []*pb.RequestOp{remove("/a/b")}},
	} {
		if got := Kind(txn); got != name {
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
