package wire

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestIsPlace(t *testing.T) {
	tests := []struct {
		key   string
		lease int64
		want  bool
	}{
		{"a/1f", 0x1f, true},
		{"a/1f-1", 0x1f, true},
		{"a/1f-12", 0x1f, true},
		{"a/1f", 0x2f, false},
		{"a/1f-", 0x1f, false},
		{"a/1f-x", 0x1f, false},
		{"a/1f-1/x", 0x1f, false},
		{"a/1f1", 0x1f, false},
		{"a/2024-10", 0x1f, false},
		{"a/0", 0, false},
		{"a/b/1f-1", 0x1f, false},
		{"b/1f-1", 0x1f, false},
	}
	for _, tt := range tests {
		if got := IsPlace("a", &mvccpb.KeyValue{Key: []byte(tt.key), Lease: tt.lease}); got != tt.want {
			t.Errorf("%q under lease %x: %v", tt.key, tt.lease, got)
		}
	}
	if !IsPlace("a", &mvccpb.KeyValue{Key: []byte(LinkedPlace("a", 0x1f, 3)), Lease: 0x1f}) {
		t.Error("our own key is no place")
	}
}

// FuzzParseLink: the tail of a lock is what anybody who may write it has written.
func FuzzParseLink(f *testing.F) {
	f.Add("1 694d7f3a-1 host")
	f.Add("2 694d7f3a-1 host")
	f.Add("-1 x")
	f.Add("1-")
	f.Fuzz(func(t *testing.T, value string) {
		l, ok := ParseLink("/k", value)
		if !ok {
			return
		}
		if !strings.HasPrefix(l.Place, Prefix("/k")+linked) {
			t.Errorf("%q names the place %q", value, l.Place)
		}
		if again, ok := ParseLink("/k", l.Marshal("/k")); !ok || again != l {
			t.Errorf("%+v came back as %+v", l, again)
		}
	})
}
