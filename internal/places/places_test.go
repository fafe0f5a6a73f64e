package places

import "testing"

// TestPlaces: two do not stand at one place, and whoever asks learns whether another one wanted it.
func TestPlaces(t *testing.T) {
	var p Places
	if first, second := p.Next(), p.Next(); first == second {
		t.Error("one number was returned twice")
	}
	take := func(key string, want bool) {
		t.Helper()
		if got := p.Take(key); got != want {
			t.Errorf("Take of %s: %v", key, got)
		}
	}
	leave := func(unlessRefused, want bool) {
		t.Helper()
		if got := p.Leave("a", unlessRefused); got != want {
			t.Errorf("Leave: %v", got)
		}
	}
	take("a", true)
	take("b", true)
	take("a", false)
	leave(false, true)
	take("a", true)
	take("a", false)
	leave(true, false)
	leave(true, true)
	take("a", true)
	leave(true, true)
	if p.Stands("a") || !p.Stands("b") {
		t.Error("somebody stands at a, or nobody at b")
	}
}

// TestNobody: somebody stands somewhere until the last one has left, and not if the place was only
// asked about.
func TestNobody(t *testing.T) {
	var p Places
	nobody := func(want bool, when string) {
		t.Helper()
		if p.Nobody() != want {
			t.Errorf("%s: %v", when, !want)
		}
	}
	nobody(true, "at first")
	p.Stands("a")
	nobody(true, "asked")
	p.Take("a")
	p.Take("b")
	p.Take("a")
	nobody(false, "two stand")
	p.Leave("b", true)
	nobody(false, "one stands")
	p.Leave("a", true)
	nobody(false, "it stands on")
	p.Leave("a", true)
	nobody(true, "all have left")
}
