package record

import (
	"strings"
	"testing"
	"time"
)

// TestFormsOfABreak: what is written over K, a slot and a place keeps its form, and the id and the
// record can be read in it.
func TestFormsOfABreak(t *testing.T) {
	b := &Break{By: "ops", Host: "c", Reason: "deploy", At: time.Date(2026, 11, 29, 3, 0, 1, 0, time.UTC), Token: 7}
	const form = `"break":{"by":"ops","host":"c","reason":"deploy","at":"2026-11-29T03:00:01Z","token":7}`
	value, over := b.Value("host a"), b.Over(`{"slot":2,"v":1,"id":"host a"}`)
	if want := `{` + form + `,"id":"host a"}`; value != want {
		t.Errorf("%s, not %s", value, want)
	}
	if want := `{"slot":2,"v":1,"id":"host a",` + form + `}`; over != want {
		t.Errorf("%s, not %s", over, want)
	}
	for _, text := range []string{value, over} {
		read, id := BreakOf([]byte(text))
		if read == nil || *read != *b || id != "host a" || Shown([]byte(text)) != "host a" {
			t.Errorf("%s is read as %+v, %q", text, read, id)
		}
	}
	if r, err := Parse([]byte(over)); err != nil || r.ID != "host a" || SeatOf([]byte(over)) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, text := range []string{"", "host a", `{"break":null}`, `{"break":7}`, `{"break":{}`, `{"v":1,"id":"break"}`} {
		if read, _ := BreakOf([]byte(text)); read != nil {
			t.Errorf("%q is read as %+v", text, read)
		}
	}
}

// TestBreakAsAnError: it names all, and what others have written cannot write on a terminal.
func TestBreakAsAnError(t *testing.T) {
	b := &Break{By: "ops\x1b[2J", Host: "c\n", Reason: "a\nb" + strings.Repeat("c", 300)}
	if got, want := b.Error(), `broken by ops?[2J@c?: "a\nb`+strings.Repeat("c", 253)+`..."`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}
