package record

import (
	"testing"
	"time"
)

// TestFormOfAPause: what is written at its place keeps its form, and is told from all else.
func TestFormOfAPause(t *testing.T) {
	at := time.Date(2026, 11, 29, 3, 0, 1, 0, time.UTC)
	p := &Pause{By: "ops", Host: "c", Reason: "move", At: at}
	const waits = `{"pause":{"by":"ops","host":"c","reason":"move","at":"2026-11-29T03:00:01Z"}}`
	if got := p.Value(); got != waits {
		t.Errorf("%s, not %s", got, waits)
	}
	p.Until = at.Add(time.Hour)
	const holds = `{"pause":{"by":"ops","host":"c","reason":"move","at":"2026-11-29T03:00:01Z","until":"2026-11-29T04:00:01Z"}}`
	if got := p.Value(); got != holds {
		t.Errorf("%s, not %s", got, holds)
	}
	if read := PauseOf([]byte(holds)); read == nil || *read != *p {
		t.Errorf("it is read as %+v", read)
	}
	if b, _ := BreakOf([]byte(holds)); b != nil {
		t.Errorf("it is read as a break: %+v", b)
	}
	if _, err := Parse([]byte(holds)); err == nil {
		t.Error("it is read as the record of a place")
	}
	for _, text := range []string{"", "pause", `{"pause":null}`, `{"pause":7}`, `{"pause":{}`, `{"v":1,"id":"\"pause\":"}`} {
		if read := PauseOf([]byte(text)); read != nil {
			t.Errorf("%q is read as %+v", text, read)
		}
	}
}

// TestPauseAsText: it names all, and what others have written cannot write on a terminal.
func TestPauseAsText(t *testing.T) {
	p := &Pause{By: "ops\x1b[2J", Host: "c\n", Reason: "a\nb"}
	if got, want := p.String(), `by ops?[2J@c?: "a\nb"`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	p.Until = time.Date(2026, 11, 29, 3, 0, 1, 0, time.Local)
	if got, want := p.String(), `by ops?[2J@c? until 2026-11-29 03:00:01: "a\nb"`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got, want := p.Name(), "pause by ops?[2J@c?"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}
