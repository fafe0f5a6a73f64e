package pulse

import (
	"log/slog"
	"strconv"
	"testing"
)

// TestAnswersTwice: an answer that comes again does not count, and is not wrong, also when the next
// ping is on its way. One that is older is wrong.
func TestAnswersTwice(t *testing.T) {
	n, err := NewNode(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	heard := make(chan News, 10)
	go func() {
		for {
			select {
			case news := <-n.Heard():
				heard <- news
			case <-n.quit:
				return
			}
		}
	}()
	ask := func() []byte {
		n.Ask()
		return strconv.AppendInt(nil, n.ping, 10)
	}
	answer := func(pong []byte, signs int64, wrong bool) {
		t.Helper()
		before := n.signs.Load()
		n.answer(pong)
		if n.signs.Load()-before != signs {
			t.Errorf("%d signs, not %d", n.signs.Load()-before, signs)
		}
		if signs > 0 || wrong {
			if news := <-heard; (news.Trouble != nil) != wrong {
				t.Errorf("heard is %v", news.Trouble)
			}
		}
	}
	first := ask()
	answer(first, 1, false)
	answer(first, 0, false)
	second := ask()
	answer(first, 0, false)
	answer(second, 1, false)
	answer(first, 0, false)
	third := ask()
	answer(first, 0, true)
	answer(third, 1, false)
}
