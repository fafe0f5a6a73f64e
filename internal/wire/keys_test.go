package wire

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

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

func TestRecordOfThisProcess(t *testing.T) {
	r := Self("me")
	got, err := ParseRecord([]byte(r.Marshal()))
	if err != nil || got != r {
		t.Errorf("%+v came back as %+v, %v", r, got, err)
	}
	if r.PID == 0 || r.ID != "me" {
		t.Errorf("%+v", r)
	}
	if _, err := ParseRecord(nil); err == nil {
		t.Error("a Mutex's empty value passed for a record")
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(Self("me").Marshal()))
	f.Add([]byte(""))
	f.Add([]byte(`{"v":2,"id":"x","more":[1]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := ParseRecord(value)
		if err != nil {
			return
		}
		if r.Version < 1 {
			t.Errorf("version %d passed", r.Version)
		}
		if again, err := ParseRecord([]byte(r.Marshal())); err != nil || again.ID != r.ID || !again.Since.Equal(r.Since) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}

func TestStamp(t *testing.T) {
	r := Self(`an "id"`)
	r.Command = "job"
	before := time.Now()
	got, err := ParseRecord([]byte(r.Stamp()()))
	if err != nil {
		t.Fatal(err)
	}
	if got.Since.Before(before.Add(-time.Second)) || got.Since.After(time.Now().Add(time.Second)) {
		t.Errorf("since %v", got.Since)
	}
	got.Since = time.Time{}
	if got != r {
		t.Errorf("%+v, want %+v", got, r)
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

func TestBelow(t *testing.T) {
	parent := Self("p")
	parent.PID = os.Getppid()
	_, parent.Start, _ = stat(strconv.Itoa(parent.PID))
	if parent.Start > 0 {
		if child := parent.Below(); child != os.Getpid() {
			t.Errorf("below its parent it is %d", child)
		}
	}
	other := parent
	other.Start++
	for name, r := range map[string]Record{"itself": Self("x"), "another one with that id": other, "nobody": {}} {
		if child := r.Below(); child != 0 {
			t.Errorf("it is below %s: %d", name, child)
		}
	}
}

// TestShown: what is shown of a value is at most as long as an id, and no character is cut.
func TestShown(t *testing.T) {
	long := strings.Repeat("x", 256)
	for value, want := range map[string]string{
		"":                    "",
		"me":                  "me",
		long:                  long,
		long + "x":            long + "...",
		long[1:] + "é" + long: long[1:] + "...",
	} {
		if got := Shown([]byte(value)); got != want {
			t.Errorf("%q is shown as %q", value, got)
		}
	}
	if got := Shown(bytes.Repeat([]byte{0x80}, 1000)); len(got) > 260 {
		t.Errorf("%d bytes are shown of no text", len(got))
	}
}
