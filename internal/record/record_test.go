package record

import (
	"bytes"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRecordOfThisProcess(t *testing.T) {
	r := Self("me")
	got, err := Parse([]byte(r.Marshal()))
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v came back as %+v, %v", r, got, err)
	}
	if r.PID == 0 || r.ID != "me" {
		t.Errorf("%+v", r)
	}
	if _, err := Parse(nil); err == nil {
		t.Error("a Mutex's empty value passed for a record")
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(Self("me").Marshal()))
	f.Add([]byte(""))
	f.Add([]byte(`{"v":2,"id":"x","more":[1]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := Parse(value)
		if err != nil {
			return
		}
		if r.Version < 1 {
			t.Errorf("version %d passed", r.Version)
		}
		if again, err := Parse([]byte(r.Marshal())); err != nil || again.ID != r.ID || !again.Since.Equal(r.Since) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}

func TestStamp(t *testing.T) {
	r := Self(`an "id"`)
	r.Command = "job"
	before := time.Now()
	got, err := Parse([]byte(r.Stamp()()))
	if err != nil {
		t.Fatal(err)
	}
	if got.Since.Before(before.Add(-time.Second)) || got.Since.After(time.Now().Add(time.Second)) {
		t.Errorf("since %v", got.Since)
	}
	got.Since = time.Time{}
	if !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, want %+v", got, r)
	}
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

// TestIsOf: a process is told from one before it that had its number, and from another host's.
func TestIsOf(t *testing.T) {
	own := Self("")
	older, abroad, later := own, own, own
	older.Start++
	abroad.Host += "-2"
	later.Boot += "-2"
	for name, r := range map[string]Record{"older": older, "abroad": abroad, "later": later} {
		if r.IsOf(os.Getpid()) {
			t.Errorf("%s: taken for this process", name)
		}
	}
	if !own.IsOf(os.Getpid()) || own.IsOf(os.Getpid()+1) {
		t.Error("this process is not told from others")
	}
}
