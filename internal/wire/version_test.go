package wire

import (
	"reflect"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/record"
)

// TestFormsOfVersion1: what is in etcd keeps the form that docs/stability.md promises, byte for
// byte. Other versions of this module run beside this one.
func TestFormsOfVersion1(t *testing.T) {
	link := Link{Place: LinkedPlace("/k", 0x1f, 2), Lease: 0x1f, ID: "host a"}
	entry := record.Record{
		Version: 1, ID: "host a", Host: "a", PID: 7, Boot: "b", PIDNS: "n", Start: 9, Command: "job",
		Since: time.Date(2026, 11, 27, 3, 0, 1, 0, time.UTC),
	}
	sits := Place{Lock: "/k", Key: SlotPlace("/k", 3, 0x1f, 2), Lease: 0x1f, ID: "host a", Linked: true, Mode: 3}
	waiting := record.Record{Version: 1, ID: "host a", Mode: "slots", Slots: 3}
	seated := record.Seated(waiting.Marshal(), 0)
	shares := record.Record{Version: 1, ID: "host a", Mode: "shared"}
	for form, want := range map[string]string{
		Tail("/k"):                   "/k~tail",
		link.Place:                   "/k/~1f-2",
		UnlinkedPlace("/k", 0x1f, 2): "/k/1f-2",
		link.Marshal("/k"):           "1 1f-2 host a",

		SharedPlace("/k", 0x1f, 2): "/k/~s1f-2",
		sits.Key:                   "/k/=3.1f-2",
		Slot("/k", 3, 0):           "/k/=3#0",
		sits.Tail():                "1 =3.1f-2 host a",
		waiting.Marshal():          `{"v":1,"id":"host a","mode":"slots","n":3}`,
		seated:                     `{"slot":0,"v":1,"id":"host a","mode":"slots","n":3}`,
		shares.Marshal():           `{"v":1,"id":"host a","mode":"shared"}`,
		entry.Marshal(): `{"v":1,"id":"host a","host":"a","pid":7,"boot":"b","pidns":"n","start":9,` +
			`"command":"job","since":"2026-11-27T03:00:01Z"}`,
	} {
		if form != want {
			t.Errorf("%s, want %s", form, want)
		}
	}
}

// TestFormsOfNewerVersions: of a newer record the fields that are known are read. A newer tail
// names no place.
func TestFormsOfNewerVersions(t *testing.T) {
	r, err := record.Parse([]byte(`{"v":2,"id":"host a","pid":7,"more":{"x":[1]}}`))
	if want := (record.Record{Version: 2, ID: "host a", PID: 7}); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v", r, err)
	}
	if link, ok := ParseLink("/k", "2 1f-2 host a"); ok {
		t.Errorf("a tail of version 2 names %q", link.Place)
	}
}
